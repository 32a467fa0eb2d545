"""Every experiment: it is planned with no network, and runs at smoke size on data in the hub's layout.

The classic notebook's recipe has tests of its own (test_imdb_ppo.py).
"""

import json
import re
from pathlib import Path

import pytest

from hub_layout import words, write_dataset
from prefsweep import config_folder
from workplace import Workplace

EXPERIMENTS = sorted(file.stem for file in (config_folder() / "experiment").glob("*.yaml"))
DATASETS = {
    "opt350m-hh": "hh-rlhf",
    "opt350m-hh-500": "hh-rlhf",
    "safe-gpt2": "CulturalKaleidoscope",
    "gpt2-hh-sweep": "hh-rlhf",
    "gpt2-ultrafeedback-lora": "ultrafeedback",
    "imdb-frontier": "imdb",
    "imdb-frontier-judged": "imdb",
}
QUICK = ("gpt2-ultrafeedback-lora", "safe-gpt2")
SMALL = ("debug=smoke", "runtime=cpu", "runtime.threads=1", "tracking=off", "jobs=2", "runtime.progress=false")


def text(experiment: str) -> str:
    return (config_folder() / f"experiment/{experiment}.yaml").read_text()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_opens_with_the_command_that_runs_it_and_what_it_needs(experiment: str) -> None:
    comment = re.match(r"(#.*\n)+", text(experiment))
    assert comment is not None
    if experiment != "demo":
        assert f"prefsweep experiment={experiment}" in comment[0]
        assert "Needs (estimates, not measured):" in comment[0]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_is_planned_with_no_network(experiment: str, tmp_path: Path) -> None:
    done = Workplace(tmp_path).command(f"experiment={experiment}", "runtime.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout
    assert not (tmp_path / "sockets.log").exists()


def run(experiment: str, place: Workplace, *more: str) -> list[dict[str, object]]:
    folder = write_dataset(DATASETS[experiment], place.folder / "data")
    done = place.command(f"experiment={experiment}", *SMALL, *words(DATASETS[experiment], folder)[1:], *more)
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = place.folder / "multirun_sweeps" / experiment
    assert (sweep / "table.md").is_file()
    assert not place.sockets.exists(), "it asked the network"
    return [json.loads(path.read_text()) for path in sorted(sweep.glob("*/run.json"))]


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(DATASETS)],
)
def test_it_runs_at_smoke_size(experiment: str, tmp_path: Path) -> None:
    runs = run(experiment, Workplace(tmp_path), *(["dataset.subset=harmless-base"] if "hh-sweep" in experiment else []))
    assert {job["status"] for job in runs} == {"finished"}


@pytest.mark.slow
def test_the_demo_runs_at_smoke_size(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    assert place.run("experiment=demo", "tracking=off", "runtime.progress=false").returncode == 0
    runs = place.jobs("demo")
    assert {name.partition("/")[0] for name in runs} == {"base", "sft", "dpo", "sft+dpo", "ppo"}
    assert {run["status"] for run in runs.values()} == {"finished"}
    assert (tmp_path / "multirun_sweeps/demo/table.md").is_file() and not place.sockets.exists()


def test_the_papers_protocol_asks_its_prompts_greedily_and_has_no_kl(tmp_path: Path) -> None:
    protocol = "stages.sample.protocol={harmful:3,helpful:2,words:[],whole_words:false,seed:100}"
    runs = run("opt350m-hh", Workplace(tmp_path), protocol, "grid=[{method:[sft+dpo]}]")
    (job,) = runs
    metrics = job["metrics"]
    assert isinstance(metrics, dict)
    assert {"judge/hmr", "judge/hpr", "judge/cas"} <= metrics.keys()
    assert not any(name.startswith("kl/") for name in metrics)
