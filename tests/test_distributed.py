"""The ppo stage by two processes of this machine: the result is that of one, and the parent passes on what they log."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefsweep.errors import UserError
from prefsweep.pipeline.history import History
from prefsweep.pipeline.stage import Context
from prefsweep.stages import ppo

SMALL = (
    *("iterations=3", "batch_size=8", "minibatch_size=4", "epochs=2", "normalisation_samples=8", "learning_rate=1e-3"),
    *("max_length=96", "response_tokens=[4,8]", "validation_prompts=4", "evaluate_every=2"),
)
Run = Callable[..., tuple[dict[str, Any], Path, list[dict[str, Any]]]]


@pytest.fixture
def run(composed: Callable[..., Any], model_folders: dict[str, Path], new_context: Any, tmp_path: Path) -> Run:
    def made(processes: int, *words: str) -> tuple[dict[str, Any], Path, list[dict[str, Any]]]:
        overrides = [f"stages.ppo.{word}" for word in (*SMALL, *words)]
        config = composed("model=gpt2", f"model.path={model_folders['gpt2']}", *overrides)
        blank = new_context(f"by-{processes}", processes=processes, threads=2)
        logged: list[dict[str, Any]] = []
        context = Context(blank.runtime, blank.checkpoints, History(blank.history.path, logged.append))
        folder = tmp_path / f"artifact-{processes}"
        folder.mkdir(exist_ok=True)
        sections = {"model": config.model, "dataset": config.dataset, "reward": config.judge}
        metrics = ppo.run(config.stages.ppo, **sections, folder=folder, context=context)
        return metrics, folder, logged

    return made


def test_two_processes_end_as_one(run: Run) -> None:
    """Sums are added in another order, and a weight whose gradient is all rounding may go either way."""
    alone, first, rows = run(1)
    together, second, logged = run(2)
    assert {name: value for name, value in together.items() if name in ("iterations", "episodes")} == {
        "iterations": 3,
        "episodes": 24,
    }
    assert together["validation/score"] == pytest.approx(alone["validation/score"], abs=0.05)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (second, first))
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-3) for name in theirs)
    assert [(row["step"], set(row)) for row in logged] == [(row["step"], set(row)) for row in rows]
    assert any("validation/score" in row for row in logged) and any("episodes_per_second" in row for row in logged)
    assert logged[0]["score/mean"] == pytest.approx(rows[0]["score/mean"], abs=1e-5)
    assert logged[0]["ratio/first"] == 1
    assert logged[-1]["cost/flops"] == pytest.approx(rows[-1]["cost/flops"], rel=0.2)
    assert {name: logged[-1][f"cost/{name}"] for name in ("labels", "episodes")} == {"labels": 8 + 24, "episodes": 24}
    assert (second / "value_head.safetensors").is_file()


def test_what_a_process_complains_of_is_the_parents_complaint(run: Run) -> None:
    with pytest.raises(UserError, match=r"^stages.ppo.max_length=500: the policy has 96 positions"):
        run(2, "max_length=500")
