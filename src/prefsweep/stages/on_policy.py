"""What the stages that optimise a reward on-policy share: from the config to a trainer and its loop.

A stage of this kind adds its advantage, a function, and its critic, if it has one; see `ppo/trainer.py`.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import PreTrainedModel

from prefsweep.config.schema import DatasetConfig, ModelConfig, RuntimeConfig, ScorerConfig, TrainedConfig
from prefsweep.config.stages import OnPolicyConfig
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.sources import load
from prefsweep.data.truncation import Ids
from prefsweep.data.views import encode_prompts
from prefsweep.errors import UserError
from prefsweep.models.codec import TextCodec, stop_strings
from prefsweep.models.heads import REWARD
from prefsweep.models.loading import load_learner, load_policy, load_tokenizer
from prefsweep.models.memory_budget import plan
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.stage import Context
from prefsweep.ppo.batches import MicroBatch
from prefsweep.ppo.cost import CostTracker
from prefsweep.ppo.policy import Critic
from prefsweep.ppo.rollout import Score, room
from prefsweep.ppo.trainer import Advantage, Task, Trainer
from prefsweep.stages import distributed
from prefsweep.stages.generate import distinct_prompts
from prefsweep.stages.on_policy_loop import Loop

# From the policy that is trained, the model section, the start and the reward model to the critic.
MakeCritic = Callable[[PreTrainedModel, ModelConfig, Path | None, Path | None], Critic]


def run(
    config: OnPolicyConfig,
    advantage: Advantage,
    make_critic: MakeCritic | None = None,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    reward: ScorerConfig,
    folder: Path,
    context: Context,
    policy: Path | None = None,
    reward_model: Path | None = None,
) -> dict[str, Any]:
    """Train the policy against the reward; return the stage's metrics.

    `advantage` and `make_critic` are functions of modules, or partial ones: other processes get them by name.
    """
    if isinstance(reward, TrainedConfig):
        trained = reward_model or Path(str(reward.path))
        check_reward(config, json.loads((trained / REWARD).read_text())["metrics"])
    if distributed.wanted(context):
        algorithm = {"config": config, "advantage": advantage, "make_critic": make_critic}
        sections = {"model": model, "dataset": dataset, "reward": reward}
        inputs = {"policy": policy, "reward_model": reward_model, "folder": folder}
        return distributed.run(run, {**algorithm, **sections, **inputs}, context)
    accelerator = new_accelerator(context.runtime)
    tokenizer = load_tokenizer(model, policy)
    scorer = load_scorer(reward, accelerator.device, reward_model)
    examples = {split: load(dataset, split, tokenizer) for split in ("train", "validation")}
    queries = {split: prompts_of(rows, tokenizer) for split, rows in examples.items()}
    codec = TextCodec(tokenizer, stop_strings(config, dataset))
    task = make_task(config, model, policy, codec, scorer.score, queries["train"], accelerator.device)
    critic = None if make_critic is None else make_critic(task.policy, model, policy, reward_model)
    runtime, models = context.runtime, 2 if critic is not None and critic.trunk is not None else 1
    memory = plan(task.policy, config.precision, runtime, config.max_length, context.checkpoints, models, logits=True)
    if memory.gradient_checkpointing:
        task.policy.gradient_checkpointing_enable({"use_reentrant": False})
    size = MicroBatch(None if memory.tokens else runtime.micro_batch, memory.tokens)
    trainer = Trainer(config, task, advantage, critic, accelerator, size, runtime.forward_batch)
    costs = CostTracker(trainer, scorer, buys_labels=not isinstance(reward, TrainedConfig))
    held_out = queries["validation"][: config.validation_prompts]
    metrics = Loop(config, costs, held_out, tokenizer, folder, context).run()
    return metrics | {"prompts_truncated": truncated(config, queries["train"])} | examples["train"].metrics()


def check_reward(config: OnPolicyConfig, metrics: dict[str, float]) -> None:
    """Refuse a reward model that does too badly on its own validation pairs. It is kept: lowering a gate is free."""
    if config.min_accuracy == 0 and not config.must_beat_length:
        return
    key = f"stages.{config.stage_name}"
    if not metrics:
        raise UserError(
            "reward.path: a state kept while a reward model was trained, which nothing has measured; take the stage's "
            f"own folder, or set {key}.min_accuracy=0 {key}.must_beat_length=false to take it as it is"
        )
    accuracy, by_length = metrics["validation/accuracy"], metrics["validation/length_accuracy"]
    if accuracy < config.min_accuracy:
        raise UserError(
            f"{key}.min_accuracy={config.min_accuracy}: the reward model ranks {accuracy:.3f} of the validation pairs "
            "correctly; train it longer or on more pairs, or lower this to take it as it is"
        )
    if config.must_beat_length and accuracy <= by_length:
        raise UserError(
            f"{key}.must_beat_length=true: the reward model ranks {accuracy:.3f} of the validation pairs correctly, "
            f"and length alone {by_length:.3f}; train it longer, or set it to false to take it as it is"
        )


def new_accelerator(runtime: RuntimeConfig) -> Any:
    """Return it for one process, or for a rank of several; precision is `loading.autocast`'s."""
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier stage's trainer may have chosen another device
    return Accelerator(cpu=runtime.device == "cpu", mixed_precision="no")


def prompts_of(examples: Sequence[PreferenceExample], tokenizer: Any) -> list[Ids]:
    return encode_prompts([example.prompt for example in distinct_prompts(examples)], tokenizer)


def truncated(config: OnPolicyConfig, queries: list[Ids]) -> int:
    """Return how many lose their beginning; where only a few first tokens are read, none does."""
    return 0 if config.query_tokens is not None else sum(len(query) > room(config) for query in queries)


def make_task(
    config: OnPolicyConfig,
    model: ModelConfig,
    policy: Path | None,
    codec: TextCodec,
    score: Score,
    queries: list[Ids],
    device: torch.device,
) -> Task:
    """Load the policy and its reference: a frozen copy, or with LoRA the policy itself, its adapters off."""
    learner = load_learner(config, model, policy).to(device)
    positions = learner.config.max_position_embeddings
    if config.max_length > positions:
        key = f"stages.{config.stage_name}.max_length"
        raise UserError(f"{key}={config.max_length}: the policy has {positions} positions")
    reference = learner
    if not config.lora:
        reference = load_policy(model, policy).to(device).eval().requires_grad_(False)
    return Task(learner, reference, codec, score, queries)
