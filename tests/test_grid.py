"""A line with several values, or an experiment's grid, becomes the jobs of a sweep: each once, all checked first."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from prefsweep import __main__
from prefsweep.config.compose import composing
from prefsweep.config.overrides import parse
from prefsweep.errors import UserError
from prefsweep.jobs.job import Job
from prefsweep.sweep import driver
from prefsweep.sweep.grid import Grid, expand, format_value

Sweep = Callable[..., Grid]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """`-m` and these words; experiments of one's own are given by name as the text of their `grid:`."""
    monkeypatch.chdir(tmp_path)

    def expanded(*words: str, multirun: bool = True, **experiments: str) -> Grid:
        folder = tmp_path / "own/experiment"
        folder.mkdir(parents=True, exist_ok=True)
        for name, grid in experiments.items():
            (folder / f"{name}.yaml").write_text(f"# @package _global_\ngrid: {grid}\n")
        with composing(folder.parent):
            return expand(list(words), multirun, folder.parent)

    return expanded


def summary(job: Job) -> tuple[str, int, float | None]:
    """Method, seed, and beta where the job runs DPO."""
    beta = job.config.stages.dpo.beta if "dpo" in job.plan.used else None
    return job.config.method.name, job.config.seed, beta


def identities(grid: Grid, role: str) -> dict[tuple[str, int], str]:
    stages = ((job, stage) for job in grid.jobs for stage in job.plan.stages if stage.role == role)
    return {(job.config.method.name, job.config.seed): stage.identity for job, stage in stages}


# ---------------------------------------------------------------------------------------- several values on the line


def test_a_key_of_a_stage_multiplies_only_the_jobs_that_run_it(sweep: Sweep) -> None:
    grid = sweep("method=sft,dpo", "stages.dpo.beta=.1,.25")
    assert [summary(job) for job in grid.jobs] == [("sft", 1, None), ("dpo", 1, 0.1), ("dpo", 1, 0.25)]


def test_each_override_is_parsed_once(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = list[str]()
    original = OverridesParser.parse_rule

    def counted(self: OverridesParser, override: str, rule: str) -> Any:
        parsed.append(override)
        return original(self, override, rule)

    monkeypatch.setattr(OverridesParser, "parse_rule", counted)
    sweep("method=sft,dpo", "seed=1,2", "stages.dpo.beta=.1,.25")
    assert len(parsed) == len(set(parsed))
    assert {"method=sft,dpo", "seed=1,2", "method=sft", "seed=1"} <= set(parsed)


def test_a_learning_curve_has_its_base_answered_and_its_judge_tried_once(sweep: Sweep) -> None:
    grid = sweep(
        "model=gpt2", "dataset=hh-rlhf", "runtime.dry_run=true", "method=base,dpo", "dataset.max_train_samples=10,100"
    )
    assert [job.resolved["dataset"]["max_train_samples"] for job in grid.jobs] == [None, 10, 100]
    roles = [{stage.role: stage.identity for stage in job.plan.stages} for job in grid.jobs]
    for role in ("judge_accuracy", "generate/base", "judge_completions/base"):
        assert len({stages[role] for stages in roles}) == 1
    assert roles[1]["reference_logps"] != roles[2]["reference_logps"]


def test_a_learning_curve_in_the_synthetic_world_has_its_base_trained_once(sweep: Sweep) -> None:
    """It reads the world's reviews, which no limit limits."""
    grid = sweep("method=dpo", "dataset.max_train_samples=null,64,128")
    roles = [{stage.role: stage.identity for stage in job.plan.stages} for job in grid.jobs]
    for role in ("pretrain", "generate/base", "judge_completions/base"):
        assert len({stages[role] for stages in roles}) == 1
    for role in ("reference_logps", "dpo"):
        assert len({stages[role] for stages in roles}) == 3


def test_jobs_share_the_stages_that_they_have_in_common(sweep: Sweep) -> None:
    grid = sweep("method=sft,sft+dpo", "seed=1,2")
    assert len(grid.jobs) == 4
    trained = identities(grid, "sft")
    assert trained["sft", 1] == trained["sft+dpo", 1] != trained["sft", 2] == trained["sft+dpo", 2]
    assert len(set(identities(grid, "generate/base").values())) == len(set(identities(grid, "pretrain").values())) == 1
    completions = identities(grid, "generate/start")
    assert completions["sft+dpo", 1] == identities(grid, "generate/result")["sft", 1]


def test_equal_jobs_run_once(sweep: Sweep) -> None:
    assert len(sweep("method=base", "seed=1,2,3").jobs) == 1
    assert len(sweep("method=sft", "seed=1,1", "runtime.micro_batch=8,16").jobs) == 1


def test_every_job_has_a_name_of_its_own(sweep: Sweep) -> None:
    grid = sweep("method=sft,dpo", "stages.dpo.beta=.1,.2", "seed=range(1,3)")
    assert len({job.name for job in grid.jobs}) == len(grid.jobs) == 6


def test_hydras_own_words_for_several_values_are_understood(sweep: Sweep) -> None:
    assert [summary(job) for job in sweep("method=glob(*dpo)", "stages.dpo.beta=.5").jobs] == [
        ("dpo", 1, 0.5),
        ("sft+dpo", 1, 0.5),
    ]
    assert {summary(job)[0] for job in sweep("method=glob(*)").jobs} >= {"base", "sft", "dpo", "sft+dpo"}
    assert [job.config.seed for job in sweep("seed=choice(4,2)", "method=sft").jobs] == [4, 2]
    with pytest.raises(UserError, match=r"^seed=interval\(1,2\): "):
        sweep("seed=interval(1,2)")


def test_without_several_values_or_a_grid_it_is_one_job_and_no_sweep(sweep: Sweep) -> None:
    grid = sweep("method=sft", multirun=False)
    assert not grid.is_sweep and len(grid.jobs) == 1
    assert sweep("method=sft").is_sweep


# -------------------------------------------------------------------------------------------------- grids from files

BLOCKS = """
  - {method: [sft], seed: [1, 2]}
  - {method: dpo, stages.dpo.beta: [.1, .25]}
"""
ALL = [("sft", 1, None), ("sft", 2, None), ("dpo", 1, 0.1), ("dpo", 1, 0.25)]


def test_a_grid_is_the_union_of_its_blocks_and_a_block_the_product_of_its_keys(sweep: Sweep) -> None:
    grid = sweep("experiment=mine", multirun=False, mine=BLOCKS)
    assert grid.is_sweep
    assert [summary(job) for job in grid.jobs] == ALL


def test_the_command_line_wins_over_the_grid(sweep: Sweep) -> None:
    summaries = [summary(job) for job in sweep("experiment=mine", "seed=7", multirun=False, mine=BLOCKS).jobs]
    assert summaries == [("sft", 7, None), ("dpo", 7, 0.1), ("dpo", 7, 0.25)]


def test_the_command_line_multiplies_the_grid(sweep: Sweep) -> None:
    grid = sweep("experiment=mine", "stages.sft.epochs=1,2", mine=BLOCKS)
    assert [summary(job) for job in grid.jobs] == [*ALL, *ALL[:2]]


def test_a_job_that_two_blocks_have_is_one(sweep: Sweep) -> None:
    blocks = "[{method: [sft], seed: [1, 2]}, {method: sft, seed: [2, 3], stages.sft.max_steps: [null]}]"
    assert [summary(job)[:2] for job in sweep("experiment=mine", mine=blocks).jobs] == [
        ("sft", 1),
        ("sft", 2),
        ("sft", 3),
    ]


def test_experiments_swept_over_keep_each_its_own_grid(sweep: Sweep) -> None:
    grid = sweep("experiment=one,two", one="[{method: [sft], seed: [5, 6]}]", two="[{method: [dpo], seed: [7]}]")
    assert [summary(job)[:2] for job in grid.jobs] == [("sft", 5), ("sft", 6), ("dpo", 7)]


def test_a_grid_may_hold_lists_and_null_as_values(sweep: Sweep) -> None:
    grid = "[{method: dpo, stages.dpo.loss: [[sigmoid], [sigmoid, hinge]], stages.dpo.loss_weights: [null]}]"
    jobs = sweep("experiment=mine", mine=grid).jobs
    assert [job.config.stages.dpo.loss for job in jobs] == [["sigmoid"], ["sigmoid", "hinge"]]


@pytest.mark.parametrize(
    "value",
    [
        *("plain", "sft+dpo", "/a/b.c", "a:b", "two words", "it's", 'say "no"', "a,b", "[x]", "{x}", "a=b", "", "#no"),
        *("back\\slash", "trailing\\", "\\'", "choice(a,b)", "null", "True", "nan", "1", "1e3", "00", "-x", "+x", "~x"),
        *(None, True, False, 1, -2, 0.1, 1e-5, 1e22),
        *([], ["a,b", None, 1.5, [True, "x y"]], {"a": 1, "b": ["c d"]}),
    ],
    ids=repr,
)
def test_a_value_of_a_file_comes_back_from_the_command_line_as_it_was(value: Any) -> None:
    with composing():
        (override,) = parse([f"key={format_value(value)}"])
    assert not override.is_sweep_override()
    parsed = plain(override.value())
    assert (parsed, type(parsed)) == (value, type(value))


def plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


# -------------------------------------------------------------------------------------------------- mistakes in grids


def test_a_key_of_a_stage_that_no_job_runs_is_refused(sweep: Sweep) -> None:
    with pytest.raises(UserError, match=r"^stages\.dpo\.beta: .*does not run"):
        sweep("method=base,sft", "stages.dpo.beta=.1,.5")
    with pytest.raises(UserError, match=r"^stages\.dpo\.beta: .*does not run"):
        sweep("experiment=mine", mine="[{method: [base, sft], stages.dpo.beta: [.1, .5]}]")


@pytest.mark.parametrize("grid", ["[]", "[{}]", "[{seed: []}]", "[seed]", "[[seed, 1]]"])
def test_a_grid_that_is_no_list_of_filled_blocks_is_refused(grid: str, sweep: Sweep) -> None:
    with pytest.raises(UserError, match=r"^grid"):
        sweep("experiment=mine", mine=grid)


@pytest.mark.parametrize("bad", ["seed=1,2,x", "stages.sft.epochs=1,2,0", "method=sft,dpo,dop", "seed=1,2,range(1,2"])
def test_one_bad_job_stops_the_sweep_before_the_first_starts(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def started(*_: Any) -> None:
        raise AssertionError("a job was started")

    monkeypatch.setattr(driver, "forkserver", started)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["prefsweep", "-m", bad])
    monkeypatch.chdir(tmp_path)
    assert __main__.main() == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------- a sweep's name


def test_a_sweep_is_named_by_its_name_or_its_experiment(sweep: Sweep) -> None:
    small = {"small": "[{method: [sft], seed: [1, 2]}]"}
    assert sweep("experiment=small", **small).name == "small"
    assert sweep("experiment=small", "sweep=other", **small).name == "other"
    assert sweep("method=sft", "sweep=other").name == "other"


def test_a_sweep_without_a_name_is_named_by_what_it_computes(sweep: Sweep) -> None:
    name = sweep("method=sft", "seed=1,2").name
    assert name.startswith("grid-")
    assert sweep("seed=2,1", "method=sft", "runtime.progress=false", "tracking=off").name == name
    assert sweep("method=sft", "seed=1,3").name != name


@pytest.mark.parametrize("name", ["../up", "a/b", "..", "/abs", ".hidden", "''", "two words"])
def test_a_sweep_stays_in_a_folder_of_its_own(name: str, sweep: Sweep) -> None:
    with pytest.raises(UserError, match=r"^sweep="):
        sweep("method=sft", f"sweep={name}")
