"""Every experiment: it is planned with no network, and runs at smoke size on data in the hub's layout.

The classic notebook's recipe has tests of its own (test_imdb_ppo.py).
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from hub_layout import words, write_dataset
from prefsweep import config_folder
from prefsweep.config.compose import compose, composing
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
EMBEDDED = ("demo", "methods")  # which need nothing
METRICS = Path(__file__).parents[1] / "docs/metrics.md"
OF_THE_JUDGE = {"judge/well_formed", "judge/truncated", "judge/prompt_mostly_truncated"}  # `judge/<other>` there
EXPERIMENT = pytest.mark.experiment
QUICK = ("gpt2-ultrafeedback-lora",)
SMALL = ("debug=smoke", "runtime=cpu", "runtime.threads=1", "tracking=off", "jobs=2", "runtime.progress=false")


def has_versus(sweep: Path, runs: list[dict[str, Any]]) -> None:
    header = (sweep / "versus.md").read_text().splitlines()[0]
    assert " ppo " in header and " dpo " in header


def names_the_best(sweep: Path, runs: list[dict[str, Any]]) -> None:
    assert "The best of 3 by validation/loss is " in (sweep / "table.md").read_text()


def has_cas(sweep: Path, runs: list[dict[str, Any]]) -> None:
    text = (sweep / "table.md").read_text()
    assert "BLEU" not in text  # which it has no column of
    header, _, *rows = (line.split(" | ") for line in text.splitlines() if "|" in line)
    assert len(rows) == 4
    assert all(re.fullmatch(r"\S+ \[\S+, \S+\]", row[header.index("CAS")]) for row in rows)


def has_samples(sweep: Path, runs: list[dict[str, Any]]) -> None:
    _, heading, below = (sweep / "report.html").read_text().partition('<h2 id="samples">')
    assert heading and "<h3>" in below


def has_frontier(sweep: Path, runs: list[dict[str, Any]]) -> None:
    with_frontier = {run["config"]["method"]["name"] for run in runs if "frontier" in run["stages"]}
    assert with_frontier == {"sft+dpo", "sft+ppo"}  # those whose start is not their result


def says_how_bleu_was_counted(sweep: Path, runs: list[dict[str, Any]]) -> None:
    assert re.search(r"; BLEU nrefs:1\|case:mixed\|eff:no\|tok:13a\|", (sweep / "table.md").read_text())


def has(*names: str) -> Callable[[Path, list[dict[str, Any]]], None]:
    def check(sweep: Path, runs: list[dict[str, Any]]) -> None:
        assert not [name for name in names if not (sweep / name).is_file()]

    return check


ENDS_IN: dict[str, list[Callable[[Path, list[dict[str, Any]]], None]]] = {
    "safe-gpt2": [has_versus, says_how_bleu_was_counted],
    "gpt2-hh-sweep": [names_the_best, has("curves.png")],
    "opt350m-hh": [has_cas, has("bars.png")],
    "imdb-frontier": [has_frontier, has("figure.png", "course.md", "course.png")],
    "gpt2-ultrafeedback-lora": [has_samples, has("curves.png")],
}


def text(experiment: str) -> str:
    return (config_folder() / f"experiment/{experiment}.yaml").read_text()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_opens_with_the_command_that_runs_it_and_what_it_needs(experiment: str) -> None:
    comment = re.match(r"(#.*\n)+", text(experiment))
    assert comment is not None
    if experiment not in EMBEDDED:
        assert f"prefsweep experiment={experiment}" in comment[0]
        assert re.search(r"Needs \((estimates, not measured|measured)\):", comment[0])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_is_planned_with_no_network(experiment: str, tmp_path: Path) -> None:
    done = Workplace(tmp_path).command(f"experiment={experiment}", "runtime.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout
    assert not (tmp_path / "sockets.log").exists()


def run(experiment: str, workplace: Workplace, *more: str) -> list[dict[str, Any]]:
    folder = write_dataset(DATASETS[experiment], workplace.folder / "data")
    done = workplace.command(f"experiment={experiment}", *SMALL, *words(DATASETS[experiment], folder)[1:], *more)
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = workplace.folder / "multirun_sweeps" / experiment
    assert (sweep / "table.md").is_file()
    assert not workplace.sockets.exists(), "it asked the network"
    return [json.loads(path.read_text()) for path in sorted(sweep.glob("*/run.json"))]


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(name, marks=EXPERIMENT if name in QUICK else pytest.mark.slow) for name in sorted(DATASETS)],
)
def test_it_runs_at_smoke_size(experiment: str, tmp_path: Path) -> None:
    runs = run(experiment, Workplace(tmp_path), *(["dataset.subset=harmless-base"] if "hh-sweep" in experiment else []))
    assert {job["status"] for job in runs} == {"finished"}
    sweep = tmp_path / "multirun_sweeps" / experiment
    for check in ENDS_IN.get(experiment, ()):
        check(sweep, runs)
    assert not undocumented(runs)


def test_every_metric_says_how_to_read_it_and_when_it_misleads() -> None:
    def names(section: str) -> list[str]:
        rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
        assert all(len(row) == 3 and all(cell.strip(" |") for cell in row) for row in rows)
        return [name for row in rows for name in re.findall("`([^`]+)`", row[0])]

    before, after = METRICS.read_text().split("## How to read them, and when they mislead")
    defined, read = names(before), names(after.split("\n\n**")[0])
    assert sorted(defined) == sorted(read) and len(set(defined)) == len(defined) > 40


def undocumented(runs: list[dict[str, Any]]) -> set[str]:
    """The metrics of runs that docs/metrics.md does not name; `…_per_token` stands there for any name before it."""
    documented = set(re.findall("`([^`]+)`", METRICS.read_text()))
    names = {name.partition("@")[0].removesuffix("_per_token") for run in runs for name in run["metrics"]}
    return {name for name in names if not name.startswith("cost/")} - documented - OF_THE_JUDGE


def test_the_defaults_are_those_that_are_documented() -> None:
    with composing():
        config = compose(["model=gpt2", "dataset=hh-rlhf", "stages.evaluate.frontier=true"])
    assert (config.stages.generate.prompts, config.stages.generate.completions_per_prompt) == (500, 4)
    assert config.stages.frontier_samples.completions_per_prompt == 256


@pytest.mark.slow
def test_the_demo_runs_at_smoke_size(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    assert workplace.run("experiment=demo", "tracking=off", "runtime.progress=false").returncode == 0
    runs = workplace.jobs("demo")
    assert {name.partition("/")[0] for name in runs} == {"base", "sft", "dpo", "sft+dpo", "ppo"}
    assert {run["status"] for run in runs.values()} == {"finished"}
    assert (tmp_path / "multirun_sweeps/demo/table.md").is_file() and not workplace.sockets.exists()


@pytest.mark.slow
def test_every_method_raises_the_true_reward_in_every_seed(tmp_path: Path) -> None:
    """At full size in the embedded world: half an hour on 2 cores."""
    workplace, methods = Workplace(tmp_path), ("kto", "rloo", "grpo")
    words = ("method=base,kto,rloo,grpo", "stages.evaluate.frontier=false", "tracking=off", "runtime.progress=false")
    assert workplace.run("experiment=methods", *words).returncode == 0
    scores: dict[str, list[float]] = {}
    for run in workplace.jobs("methods").values():
        scores.setdefault(run["config"]["method"]["name"], []).append(run["metrics"]["judge/mean"])
    (base,) = scores["base"]
    for method in methods:
        assert len(scores[method]) == 5
        assert min(scores[method]) - base > 10 * stdev(scores[method]), method


def test_the_papers_protocol_asks_its_prompts_greedily_and_has_no_kl(tmp_path: Path) -> None:
    protocol = "stages.generate.protocol={harmful:3,helpful:2,words:[],whole_words:false,seed:100}"
    runs = run("opt350m-hh", Workplace(tmp_path), protocol, "grid=[{method:[sft+dpo]}]")
    (job,) = runs
    metrics = job["metrics"]
    assert {"judge/hmr", "judge/hpr", "judge/cas"} <= metrics.keys()
    assert not any(name.startswith("kl/") for name in metrics)
