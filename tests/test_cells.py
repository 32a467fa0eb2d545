"""Every cell of models, datasets and methods runs at smoke size, on small datasets in the hub's layout."""

import itertools
import json
from pathlib import Path

import pytest

import hub_layout
from workplace import Workplace

MODELS = ("gpt2", "gpt2-medium", "opt-350m")
METHODS = ("ppo", "dpo", "sft+dpo")


def run_cells(folder: Path, dataset: str, cells: list[tuple[str, str]]) -> None:
    workplace = Workplace(folder)
    blocks = ",".join(f"{{model:[{model}],method:[{method}]}}" for model, method in cells)
    words = hub_layout.words(dataset, hub_layout.write_dataset(dataset, folder / "data"))
    settings = ("debug=smoke", "runtime=cpu", "runtime.threads=1", "tracking=off", "sweep=cells", "jobs=2")
    done = workplace.command(*settings, *words, f"grid=[{blocks}]")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [json.loads(path.read_text()) for path in (folder / "multirun_sweeps/cells").glob("*/run.json")]
    assert {(run["config"]["model"]["name"], run["config"]["method"]["name"]) for run in runs} == set(cells)
    assert {run["status"] for run in runs} == {"finished"}
    assert not workplace.sockets.exists()


@pytest.mark.parametrize("dataset", hub_layout.NAMES)
def test_one_cell_runs_on_each_dataset(dataset: str, tmp_path: Path) -> None:
    """Each model and each method is among them."""
    index = hub_layout.NAMES.index(dataset) % 3
    run_cells(tmp_path, dataset, [(MODELS[index], METHODS[index])])


@pytest.mark.slow
@pytest.mark.parametrize("dataset", hub_layout.NAMES)
def test_every_cell_runs(dataset: str, tmp_path: Path) -> None:
    run_cells(tmp_path, dataset, list(itertools.product(MODELS, METHODS)))
