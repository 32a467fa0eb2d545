"""Log-probabilities and KL against their definitions, one row at a time and without padding."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from prefsweep.evaluation.divergence import Forward, kl, per_token, values
from prefsweep.evaluation.values import means
from prefsweep.models.logprobs import answer_batch, answer_logits, answer_logprobs

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [3, 4]]
ANSWERS = [[20, 21], [22, 23, 24, 25, 0], [26], [27, 28, 29, 0]]


@pytest.fixture(params=["gpt2", "opt"])
def model(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folders[request.param], dtype=torch.float32).eval()


def by_definition(model: Any, prompt: list[int], answer: list[int]) -> float:
    """Σ_t log softmax(logits of the row alone)[y_t], position by position."""
    logits = model(torch.tensor([prompt + answer])).logits[0]
    return sum(float(logits[len(prompt) + t - 1].log_softmax(-1)[token]) for t, token in enumerate(answer))


@torch.no_grad()
def test_they_equal_the_definition_row_by_row(model: Any) -> None:
    found = answer_logprobs(model, answer_batch(PROMPTS, ANSWERS, pad=0, device=model.device))
    expected = [by_definition(model, *row) for row in zip(PROMPTS, ANSWERS, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_padding_and_its_token_change_nothing(model: Any) -> None:
    together = answer_logprobs(model, answer_batch(PROMPTS, ANSWERS, pad=0, device=model.device))
    other_pad = answer_logprobs(model, answer_batch(PROMPTS, ANSWERS, pad=17, device=model.device))
    alone = [
        float(answer_logprobs(model, answer_batch([prompt], [answer], pad=0, device=model.device)))
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    assert torch.equal(together, other_pad)


@torch.no_grad()
def test_masked_positions_get_no_gradient_and_no_weight(model: Any) -> None:
    batch = answer_batch(PROMPTS, ANSWERS, pad=0, device=model.device)
    assert batch.answer_mask.sum(-1).tolist() == [len(answer) for answer in ANSWERS]
    with torch.enable_grad():
        logits = answer_logits(model, batch).detach().requires_grad_()
        chosen = logits.gather(-1, batch.answers[..., None]).squeeze(-1) - logits.logsumexp(-1)
        (chosen * batch.answer_mask).sum().backward()
    assert logits.grad is not None and float(logits.grad[~batch.answer_mask].abs().sum()) == 0.0


def tiny(seed: int) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    shape = GPT2Config(vocab_size=5, n_embd=8, n_layer=1, n_head=1, n_positions=8, initializer_range=1.0)
    return GPT2LMHeadModel(shape).eval()


@torch.no_grad()
def test_the_kl_of_sampled_answers_is_the_kl_of_the_distributions() -> None:
    """All answers of up to 3 tokens (0 is EOS): Σ_y π(y) log π(y)/π_ref(y) = Σ_y π(y) Σ_t KL_t(y)."""
    policy, reference, prompt = tiny(1), tiny(2), [3, 1]
    answers = [
        list(answer)
        for length in (1, 2, 3)
        for answer in itertools.product(range(5), repeat=length)
        if 0 not in answer[:-1] and (answer[-1] == 0 or length == 3)
    ]
    batch = answer_batch([prompt] * len(answers), answers, pad=0, device=policy.device)
    ours, theirs = answer_logprobs(policy, batch), answer_logprobs(reference, batch)
    weights = ours.exp()
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)  # the answers are all there are
    by_step = kl(answer_logits(policy, batch), answer_logits(reference, batch), batch.answer_mask)
    assert float((weights * by_step).sum()) == pytest.approx(float((weights * (ours - theirs)).sum()), abs=1e-5)
    assert (by_step >= -1e-6).all()


@torch.no_grad()
def test_a_policy_has_no_distance_to_itself_and_a_positive_one_to_another() -> None:
    rows = [{"prompt_tokens": [3, 1], "answer_tokens": [2, 4, 0]}, {"prompt_tokens": [2], "answer_tokens": [0]}]
    policy = tiny(1)
    said = values(policy, tiny(2), policy, rows, Forward(0, 2, "fp32"), with_kl=True)  # type: ignore[arg-type]
    found = means(said) | per_token(said, rows)
    assert found["kl/start"] == 0.0
    assert found["kl/base"] > 0.1
    assert found["kl/base_per_token"] == pytest.approx(found["kl/base"] * 2 / 4)
