"""Log-probabilities and KL against their definitions, one row at a time and without padding."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from prefsweep.evaluation.divergence import Forward, kl, per_token, values
from prefsweep.evaluation.values import means
from prefsweep.models.logprobs import completion_batch, completion_logits, completion_logprobs

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [3, 4]]
COMPLETIONS = [[20, 21], [22, 23, 24, 25, 0], [26], [27, 28, 29, 0]]


@pytest.fixture(params=["gpt2", "opt"])
def model(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folders[request.param], dtype=torch.float32).eval()


def by_definition(model: Any, prompt: list[int], completion: list[int]) -> float:
    """Σ_t log softmax(logits of the row alone)[y_t], position by position."""
    logits = model(torch.tensor([prompt + completion])).logits[0]
    return sum(float(logits[len(prompt) + t - 1].log_softmax(-1)[token]) for t, token in enumerate(completion))


@torch.no_grad()
def test_they_equal_the_definition_row_by_row(model: Any) -> None:
    logprobs = completion_logprobs(model, completion_batch(PROMPTS, COMPLETIONS, pad=0, device=model.device))
    expected = [by_definition(model, *row) for row in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert logprobs.tolist() == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_padding_and_its_token_change_nothing(model: Any) -> None:
    together = completion_logprobs(model, completion_batch(PROMPTS, COMPLETIONS, pad=0, device=model.device))
    other_pad = completion_logprobs(model, completion_batch(PROMPTS, COMPLETIONS, pad=17, device=model.device))
    alone = [
        float(completion_logprobs(model, completion_batch([prompt], [completion], pad=0, device=model.device)))
        for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    assert torch.equal(together, other_pad)


@torch.no_grad()
def test_masked_positions_get_no_gradient_and_no_weight(model: Any) -> None:
    batch = completion_batch(PROMPTS, COMPLETIONS, pad=0, device=model.device)
    assert batch.completion_mask.sum(-1).tolist() == [len(completion) for completion in COMPLETIONS]
    with torch.enable_grad():
        logits = completion_logits(model, batch).detach().requires_grad_()
        chosen = logits.gather(-1, batch.completions[..., None]).squeeze(-1) - logits.logsumexp(-1)
        (chosen * batch.completion_mask).sum().backward()
    assert logits.grad is not None and float(logits.grad[~batch.completion_mask].abs().sum()) == 0.0


def tiny(seed: int) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    shape = GPT2Config(vocab_size=5, n_embd=8, n_layer=1, n_head=1, n_positions=8, initializer_range=1.0)
    return GPT2LMHeadModel(shape).eval()


@torch.no_grad()
def test_the_kl_of_sampled_answers_is_the_kl_of_the_distributions() -> None:
    """All answers of up to 3 tokens (0 is EOS): Σ_y π(y) log π(y)/π_ref(y) = Σ_y π(y) Σ_t KL_t(y)."""
    policy, reference, prompt = tiny(1), tiny(2), [3, 1]
    completions = [
        list(completion)
        for length in (1, 2, 3)
        for completion in itertools.product(range(5), repeat=length)
        if 0 not in completion[:-1] and (completion[-1] == 0 or length == 3)
    ]
    batch = completion_batch([prompt] * len(completions), completions, pad=0, device=policy.device)
    ours, theirs = completion_logprobs(policy, batch), completion_logprobs(reference, batch)
    weights = ours.exp()
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)  # the answers are all there are
    by_step = kl(completion_logits(policy, batch), completion_logits(reference, batch), batch.completion_mask)
    assert float((weights * by_step).sum()) == pytest.approx(float((weights * (ours - theirs)).sum()), abs=1e-5)
    assert (by_step >= -1e-6).all()


@torch.no_grad()
def test_a_policy_has_no_distance_to_itself_and_a_positive_one_to_another() -> None:
    rows = [
        {"group": "a", "prompt_tokens": [3, 1], "completion_tokens": [2, 4, 0]},
        {"group": "b", "prompt_tokens": [2], "completion_tokens": [0]},
    ]
    policy = tiny(1)
    row_values = values(policy, tiny(2), policy, rows, Forward(0, 2, "fp32"), with_kl=True)  # type: ignore[arg-type]
    metrics = means(row_values) | per_token(row_values, rows).metrics
    assert metrics["kl/start"] == 0.0
    assert metrics["kl/base"] > 0.1
    assert metrics["kl/base_per_token"] == pytest.approx(metrics["kl/base"] * 2 / 4)
