"""The tokens of one pass where memory decides them, and steps that run out of it."""

import itertools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prefsweep.models import memory_budget
from prefsweep.models.memory_budget import MemoryPlan, plan, saved_bytes
from prefsweep.stages import training
from test_shared_prefix import build
from test_training import batch_of, pair_trainer

GIB = 2**30


class Runtime:
    def __init__(self, micro_batch: Any = "auto", gradient_checkpointing: Any = "auto"):
        self.micro_batch, self.gradient_checkpointing = micro_batch, gradient_checkpointing


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., MemoryPlan]:
    builds = itertools.count()

    def make(free: float, folder: str | None = None, **settings: Any) -> MemoryPlan:
        monkeypatch.setattr(memory_budget, "free_bytes", lambda _: int(free))
        runtime: Any = Runtime(**settings)
        checkpoints = tmp_path / (folder or str(next(builds)))
        checkpoints.mkdir(exist_ok=True)
        return plan(build("gpt2"), "fp32", runtime, 8, checkpoints)

    return make


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama"])
def test_bytes_a_token_are_those_that_autograd_holds(kind: str) -> None:
    """Between 10 and 40 vectors of the model's width in each layer, and less in bf16."""
    model = build(kind).base_model
    assert saved_bytes(model, "bf16") < saved_bytes(model, "fp32")
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    assert 10 * 4 * width * layers < saved_bytes(model, "fp32") < 40 * 4 * width * layers


def test_counting_leaves_the_random_numbers_and_the_gradients_alone() -> None:
    model = build("gpt2").train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    saved_bytes(model.base_model, "bf16")
    assert torch.equal(torch.rand(1), expected)
    assert all(weight.grad is None for weight in model.parameters())


def test_less_memory_gives_fewer_tokens_and_at_last_checkpoints(
    monkeypatch: pytest.MonkeyPatch, planned: Callable[..., MemoryPlan]
) -> None:
    model = build("gpt2")
    weights = 12 * sum(weight.numel() for weight in model.parameters())
    row = 8 * saved_bytes(model.base_model, "fp32")
    monkeypatch.setattr(memory_budget, "SHARE", {"cpu": 1.0})
    assert planned(weights + 10.5 * row) == MemoryPlan(64, False)
    assert planned(weights + 1.1 * row) == MemoryPlan(8, False)
    little = planned(weights + 0.9 * row)
    assert little.gradient_checkpointing and little.tokens is not None and little.tokens >= 8
    assert planned(0) == MemoryPlan(8, True)  # a row, whatever happens
    assert planned(100 * GIB) == MemoryPlan(memory_budget.CPU_TOKENS, False)


def test_a_build_that_goes_on_splits_as_it_began(planned: Callable[..., MemoryPlan]) -> None:
    begun = planned(100 * GIB, "killed")
    assert planned(0, "killed") == begun != planned(0, "another")


def test_what_the_config_says_is_taken(planned: Callable[..., MemoryPlan]) -> None:
    assert planned(0, micro_batch=4, gradient_checkpointing=False) == MemoryPlan(None, False)
    assert planned(0, micro_batch=4) == MemoryPlan(None, True)
    assert planned(0, gradient_checkpointing=False) == MemoryPlan(8, False)


def test_a_step_that_runs_out_of_memory_is_made_in_smaller_parts(
    model_folders: dict[str, Path], tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(tokens: int, most: int) -> tuple[list[int], dict[str, torch.Tensor], dict[str, list[float]]]:
        trainer = pair_trainer(model_folders["gpt2"], tmp_path, tokenizer)
        trainer.micro_batch, trainer.micro_tokens = None, tokens
        trainer._metrics["train"]["of an earlier step"].append(7.0)
        monkeypatch.setattr(training, "SMALLEST", 4)
        forward, restart, sizes, held = (
            trainer.model.forward,
            trainer.restart_in_smaller_parts,
            list[int](),
            list[Any](),
        )

        def limited(*args: Any, **inputs: Any) -> Any:
            activations = torch.zeros(3)
            held.append(weakref.ref(activations))
            if inputs["input_ids"].numel() > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            sizes.append(inputs["input_ids"].numel())
            return forward(*args, **inputs)

        def restart_when_freed(model: Any) -> None:
            assert all(reference() is None for reference in held)
            restart(model)

        monkeypatch.setattr(trainer.model, "forward", limited)
        monkeypatch.setattr(trainer, "restart_in_smaller_parts", restart_when_freed)
        trainer.training_step(trainer.model, batch_of(trainer))
        gradients = {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}
        return sizes, gradients, trainer._metrics["train"]

    whole, expected, metrics = step(4096, 4096)
    sizes, parts, in_parts = step(4096, max(whole) // 2)
    assert len(whole) == 1 and len(sizes) > 1
    assert in_parts.keys() == metrics.keys() and in_parts["of an earlier step"] == [7.0]
    for name, values in metrics.items():
        assert in_parts[name] == pytest.approx(values, abs=1e-5), name
    for name, each in parts.items():
        torch.testing.assert_close(each, expected[name], atol=1e-6, rtol=1e-4, msg=name)
    with pytest.raises(torch.OutOfMemoryError):
        step(4096, 1)
