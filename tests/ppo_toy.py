"""Tiny policies with random weights, and a task for them whose tokens are written as numbers."""

from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig

from prefsweep.config.stage import AdapterConfig
from prefsweep.config.stages import OnPolicyConfig, PPOConfig
from prefsweep.models.adapters import with_adapters
from prefsweep.models.codec import TextCodec
from prefsweep.models.logprobs import Ids
from prefsweep.models.scorers import Measures
from prefsweep.ppo.batches import MicroBatch
from prefsweep.ppo.policy import Critic
from prefsweep.ppo.trainer import Task, Trainer
from prefsweep.stages import ppo

C = TypeVar("C", bound=OnPolicyConfig)
EOS, PAD, VOCABULARY = 0, 1, 12
TARGETS = {"gpt2": ["c_attn", "c_proj"], "opt": ["q_proj", "v_proj"]}  # of adapters


def tiny(name: str, vocabulary: int = VOCABULARY, seed: int = 0, width: int = 16) -> Any:
    """Random weights, large enough that tokens differ in probability; OPT narrower inside, like opt-350m."""
    torch.manual_seed(seed)
    special = {"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": None, "vocab_size": vocabulary}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    narrow = {"word_embed_proj_dim": 8, "do_layer_norm_before": False, "ffn_dim": 32, "dropout": 0.0, "init_std": 0.3}
    shape = (
        GPT2Config(n_embd=width, n_layer=1, n_head=2, n_positions=32, initializer_range=0.3, **off, **special)
        if name == "gpt2"
        else OPTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32, **narrow, **special
        )
    )
    return AutoModelForCausalLM.from_config(shape, dtype=torch.float32)


QUERIES: list[Ids] = [[2 + (3 * row + index) % 10 for index in range(1 + row % 6)] for row in range(40)]


class Numbers:
    """A tokenizer of tokens that are written as numbers."""

    eos_token_id, pad_token_id = EOS, PAD

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[Ids]]:
        return {"input_ids": [[EOS] for _ in texts]}

    def batch_decode(self, rows: list[Ids], **_: Any) -> list[str]:
        return [" ".join(map(str, row)) for row in rows]


CODEC = TextCodec(Numbers())


def threes(prompts: list[str], completions: list[str]) -> list[float]:
    return [
        completion.split().count("3") - 0.1 * len(prompt)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def make_task(
    name: str = "gpt2", score: Any = threes, queries: list[Ids] = QUERIES, lora: bool = False, **changes: Any
) -> Task:
    """With `lora` the reference is the policy itself, its adapters off. `score` gives one number a completion."""

    def measured(prompts: list[str], completions: list[str], ended: list[bool]) -> Measures:
        return {"score": score(prompts, completions)}

    policy, reference = tiny(name), tiny(name).eval()
    if lora:
        policy = reference = with_adapters(policy, AdapterConfig(2, 4, 0.0, TARGETS[name]), None, seed=1)
    task = Task(policy, reference, CODEC, measured, queries)
    return replace(task, **changes)


def short(stage: PPOConfig, **changes: Any) -> PPOConfig:
    """Return a config of a few bold steps on short completions, whatever the stage's own values are."""
    sizes = {"batch_size": 24, "minibatch_size": 8, "epochs": 4, "iterations": 3, "normalisation_samples": 24}
    pace = {"learning_rate": 1e-2, "warmup_iterations": 0, "response_tokens": [8, 12], "max_length": 32}
    return replace(stage, **{**sizes, **pace, **changes})


def make_trainer(
    config: PPOConfig, task: Task, micro_batch: int = 3, trunk: Any = None, accelerator: Any = None
) -> Trainer:
    """Return PPO's trainer; `trunk` is the critic's own."""
    rate = config.critic_learning_rate or config.learning_rate
    algorithm = (partial(ppo.advantage, config), Critic(trunk, rate, config.vf_coef, config.clip_range_value))
    return Trainer(
        config, task, *algorithm, accelerator or Accelerator(cpu=True), MicroBatch(micro_batch), forward_batch=16
    )


def without_critic(config: OnPolicyConfig, task: Task, advantage: Any, micro_batch: int = 3) -> Trainer:
    """Return the trainer of an algorithm that is its advantage alone."""
    return Trainer(
        config, task, partial(advantage, config), None, Accelerator(cpu=True), MicroBatch(micro_batch), forward_batch=16
    )


def with_shared_settings(kind: type[C], stage: OnPolicyConfig, **changes: Any) -> C:
    """Return a config of another kind with the settings that it shares with `stage`, but for the changes."""
    shared = {field.name: getattr(stage, field.name) for field in fields(OnPolicyConfig)}
    return kind(**{**shared, **changes})


# A completion of one token, and steps large enough that a policy gets where it should within some dozen iterations.
BANDIT: dict[str, Any] = {
    "response_tokens": [1, 1],
    "batch_size": 256,
    "minibatch_size": 128,
    "score_normalisation": "none",
    "max_grad_norm": 10.0,
    "min_entropy": 0.0,
    "target_kl": None,
}


def rewards_of_tokens(rewards: list[float]) -> tuple[Task, Tensor]:
    """Return a task whose completion is one token with one reward, and the probabilities of its tokens at the start."""
    task = make_task(
        score=lambda prompts, completions: [rewards[int(completion)] for completion in completions],
        queries=[[2]],
        policy=tiny("gpt2", vocabulary=len(rewards)),
        reference=tiny("gpt2", vocabulary=len(rewards)).eval(),
    )
    return task, token_probabilities(task, [2])


def tilted(reference: Tensor, rewards: list[float], kl_coef: float) -> Tensor:
    """Return π* = π_ref exp(r/kl_coef) / Z, the best policy for a reward with a price of KL."""
    weights = reference * (torch.tensor(rewards) / kl_coef).exp()
    return weights / weights.sum()


def token_probabilities(task: Task, query: Ids) -> Tensor:
    with torch.no_grad():
        return task.policy.eval()(torch.tensor([query])).logits[0, -1].softmax(-1)
