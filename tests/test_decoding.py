"""Sampling: the right distribution, and the same answer whatever it is batched with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from prefsweep.models.decoding import READ_EVERY, draw, sample, uniforms
from prefsweep.models.precision import weights_cast_once

EOS, PAD = 0, 1


@pytest.fixture(params=["gpt2", "opt"])
def model(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folders[request.param], dtype=torch.float32).eval()


def prompts(count: int) -> list[list[int]]:
    return [[(7 * row + index) % 500 + 5 for index in range(1 + row % 6)] for row in range(count)]


def test_tokens_are_drawn_with_their_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    draws = draw(logits.expand(200_000, -1), uniforms(["x"], 200_000, seed=3)[0], temperature=2.0)
    shares = torch.bincount(draws, minlength=4) / 200_000
    expected = (logits[0] / 2.0).softmax(-1)
    error = (expected * (1 - expected) / 200_000).sqrt()
    assert ((shares - expected).abs() < 4 * error).all()


@pytest.mark.parametrize("vocabulary", [3, 256, 257, 50_257])
@pytest.mark.parametrize("spread", [0.01, 3.0, 30.0])
def test_a_draw_is_that_of_the_plain_formula(vocabulary: int, spread: float) -> None:
    """They add in another order, so they may differ at a number within 1e-13 of a boundary: none of these is."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(203, vocabulary, generator=generator) * spread
    logits[:40, ::2] = float("-inf")
    uniform = torch.rand(203, generator=generator, dtype=torch.float64)
    uniform[:4] = torch.tensor([0.0, 1e-300, 1 - 1e-9, 1 - 1e-12], dtype=torch.float64)
    cumulative = (logits.double() / 0.7).softmax(-1).cumsum(-1)
    expected = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True).squeeze(-1)
    assert torch.equal(draw(logits, uniform, 0.7), expected)


def test_the_largest_number_draws_a_token_that_can_be_drawn() -> None:
    logits = torch.full((64, 1000), float("-inf"))
    logits[:, 300:310] = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    tokens = draw(logits, torch.full((64,), 1 - 2**-53, dtype=torch.float64), 1.0)
    assert ((tokens >= 300) & (tokens < 310)).all()


def test_the_ends_of_the_interval_draw_real_tokens() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]]).expand(2, -1)
    assert draw(logits, torch.tensor([0.0, 1.0 - 1e-16], dtype=torch.float64), 1.0).tolist() == [1, 2]


def test_an_answer_does_not_depend_on_its_batch(model: Any) -> None:
    numbers = uniforms([f"{row}/0" for row in range(64)], 20, seed=0)
    together = sample(model, prompts(64), numbers, EOS, PAD, 1.0)
    alone = [sample(model, [row], numbers[[index]], EOS, PAD, 1.0)[0] for index, row in enumerate(prompts(64))]
    assert together == alone


def test_each_token_is_the_one_its_number_points_at(model: Any) -> None:
    """Against a loop without cache, padding or batch."""
    numbers = uniforms(["a", "b", "c"], 12, seed=5)
    completions = sample(model, prompts(3), numbers, EOS, PAD, 1.0)
    for prompt, completion, row in zip(prompts(3), completions, numbers, strict=True):
        for step, token in enumerate(completion):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + completion[:step]])).logits[:, -1]
            assert token == int(draw(logits, row[[step]], 1.0))


def test_weights_that_are_cast_once_give_the_numbers_of_autocast(model: Any) -> None:
    batch = torch.tensor([[7, 8, 9, 10]])
    weights = [(name, id(weight)) for name, weight in model.named_parameters(remove_duplicate=False)]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(batch).logits
        with weights_cast_once(model):
            assert model.get_output_embeddings().weight.dtype == torch.bfloat16
            assert model.get_input_embeddings().weight.dtype == torch.float32
            assert torch.equal(model(batch).logits, expected)
    assert [(name, id(weight)) for name, weight in model.named_parameters(remove_duplicate=False)] == weights
    with weights_cast_once(model):
        assert model.get_output_embeddings().weight.dtype == torch.float32


def test_answers_end_at_the_first_eos_or_at_the_cap(model: Any) -> None:
    completions = sample(model, prompts(200), uniforms([str(row) for row in range(200)], 15, 1), EOS, PAD, 3.0)
    assert any(completion[-1] == EOS and len(completion) < 15 for completion in completions)
    for completion in completions:
        assert EOS not in completion[:-1]
        assert completion[-1] == EOS or len(completion) == 15


@pytest.mark.parametrize("steps", [4, 15, 100])
@pytest.mark.parametrize("stop", [None, 5])
def test_completions_do_not_depend_on_how_often_tokens_are_read(
    model: Any, steps: int, stop: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def completions() -> list[list[int]]:
        numbers = uniforms([str(row) for row in range(200)], 15, 1)
        at_stop = None if stop is None else lambda completion: completion[-1] == stop
        return sample(model, prompts(200), numbers, EOS, PAD, 3.0, at_stop)

    each = completions()
    assert any(1 < len(completion) < 15 for completion in each)
    assert stop is None or any(completion[-1] == stop for completion in each)
    monkeypatch.setitem(READ_EVERY, "cpu", steps)
    assert completions() == each


def test_a_row_has_its_own_stream_of_numbers() -> None:
    first = uniforms(["a", "b"], 8, seed=1)
    assert torch.equal(first[1], uniforms(["b"], 8, seed=1)[0])
    assert torch.equal(first[0, :5], uniforms(["a"], 5, seed=1)[0])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], uniforms(["a"], 8, seed=2)[0])


def test_temperature_0_is_greedy_as_transformers_does_it(model: Any) -> None:
    completions = sample(model, prompts(6), uniforms([str(row) for row in range(6)], 12, 1), EOS, PAD, 0)
    for prompt, completion in zip(prompts(6), completions, strict=True):
        options = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": EOS, "pad_token_id": PAD}
        (whole,) = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), **options)
        assert completion == whole[len(prompt) :].tolist()
