"""Any causal model: what this project computes of it is the model's own, whatever it does to its logits."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from prefsweep.models.logprobs import completion_batch, completion_logprobs
from prefsweep.ppo.policy import ActorCritic, Critic, reference_logprobs

SIZE: dict[str, Any] = {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL: dict[str, Any] = SIZE | {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
GROUPED = SMALL | {"num_key_value_heads": 1, "head_dim": 8}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": SIZE | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "opt": SMALL | {"ffn_dim": 32, "word_embed_proj_dim": 8, "do_layer_norm_before": False},
    "llama": GROUPED,
    "qwen2": SMALL | {"num_key_value_heads": 1},
    "qwen3": GROUPED,
    "gemma2": GROUPED | {"final_logit_softcapping": 0.5, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "gemma3_text": GROUPED | {"query_pre_attn_scalar": 8, "sliding_window": 8},
    "gpt_neox": SMALL,
    "granite": GROUPED | {"logits_scaling": 4.0},
    "cohere": SMALL | {"num_key_value_heads": 1, "logit_scale": 0.25},
}
PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15, 16]]
COMPLETIONS = [[3, 4, 2], [5, 2], [6, 7, 8, 9]]


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    shape = AutoConfig.for_model(request.param, **ARCHITECTURES[request.param])
    made = AutoModelForCausalLM.from_config(shape).eval()
    for weight in made.parameters():  # far enough from 0 that scaling or capping the logits shows
        torch.nn.init.normal_(weight, std=0.5)
    return made


@torch.no_grad()
def by_hand(model: Any, prompt: list[int], completion: list[int], temperature: float) -> torch.Tensor:
    """log π of each completion token by the model's plain forward of one row, without padding."""
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1)[range(len(completion)), completion]


def test_ppo_computes_the_models_own_log_probabilities(model: Any) -> None:
    policy = ActorCritic(model, Critic(trunk=None, learning_rate=1e-2, coef=0.1, clip_range=0.2), temperature=0.7)
    batch = completion_batch(PROMPTS, COMPLETIONS, SIZE["pad_token_id"], torch.device("cpu"))
    with torch.no_grad():
        output = policy(batch)
    reference = reference_logprobs(model, batch, 0.7)
    assert torch.equal(output.logprobs, reference)
    assert output.values.shape == output.logprobs.shape
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        expected = by_hand(model, prompt, completion, 0.7)
        assert torch.allclose(output.logprobs[row, -len(completion) :], expected, atol=1e-4)


def test_evaluation_computes_the_models_own_log_probabilities(model: Any) -> None:
    batch = completion_batch(PROMPTS, COMPLETIONS, SIZE["pad_token_id"], torch.device("cpu"))
    with torch.no_grad():
        logps = completion_logprobs(model, batch)
    expected = [by_hand(model, *texts, 1.0).sum() for texts in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert torch.allclose(logps, torch.stack(expected), atol=2e-4)
