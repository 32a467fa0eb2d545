"""Two runs side by side; the best configuration by validation; the same on fresh seeds."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from prefsweep.__main__ import dispatch
from prefsweep.cli.parser import parse
from prefsweep.config.compose import composing
from prefsweep.errors import UserError
from prefsweep.report.choice import best, ranked
from prefsweep.report.diff import diff
from prefsweep.sweep.grid import expand
from prefsweep.sweep.rescore import confirm_overrides
from recorded import write_completions, write_run
from workplace import Workplace


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(where: Console) -> str:
    assert isinstance(where.file, io.StringIO)
    return where.file.getvalue()


def tuned(
    sweep: Path,
    on_test: dict[float, float],
    on_validation: dict[float, list[float]],
    key: str = "learning_rate",
    **settings: str,
) -> Path:
    """dpo over values of a key and two seeds: a mean score on test, and a history of validation loss."""
    for value, score in on_test.items():
        for seed in (1, 2):
            words = ["experiment=demo", "method=dpo", f"seed={seed}", f"stages.dpo.{key}={value}", "sweep=tuned"]
            changes = {f"stages.dpo.{name}": each for name, each in {key: value, **settings}.items()}
            run = write_run(sweep, "dpo", seed, {"judge/mean": score}, overrides=words, **changes)
            record = json.loads((run / "run.json").read_text())
            record["stages"]["dpo"] = run.name
            record["config"]["runtime"]["outputs"] = str(sweep.parent / "outputs")
            (run / "run.json").write_text(json.dumps(record))
            folder = sweep.parent / "outputs/stages/dpo" / run.name
            folder.mkdir(parents=True)
            rows = [
                {"step": step, "loss": 1.0, "validation/loss": loss, "validation/accuracy": 1 - loss / 2}
                for step, loss in enumerate(on_validation[value])
            ]
            (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sweep


def test_the_best_is_chosen_on_validation_and_reported_on_test(tmp_path: Path) -> None:
    sweep = tuned(tmp_path / "s", {0.1: 0.9, 0.5: 0.3, 1.0: 0.5}, {0.1: [0.5, 0.6], 0.5: [0.7, 0.2], 1.0: [0.1, 0.4]})
    where = console()
    chosen, count = best(sweep, "validation/loss", where)
    assert count == 3 and chosen.keys == {"stages.dpo.learning_rate": 0.5} and chosen.value == pytest.approx(0.2)
    assert re.search(r"1  validation/loss 0\.2000  dpo\.learning_rate 0\.5", printed(where))
    assert "0.300" in printed(where) and "0.900" not in printed(where)
    assert ranked(sweep, "validation/accuracy")[0].keys == {"stages.dpo.learning_rate": 0.5}


def test_a_run_that_kept_its_best_state_is_ranked_by_that(tmp_path: Path) -> None:
    settings = {"checkpoint": "best", "best_by": "loss"}
    sweep = tuned(tmp_path / "s", {0.1: 0.0, 0.5: 0.0}, {0.1: [0.1, 0.9], 0.5: [0.5, 0.4]}, **settings)
    assert [choice.value for choice in ranked(sweep, "validation/loss")] == pytest.approx([0.1, 0.4])


def test_a_choice_by_a_metric_whose_scale_varies_is_refused(tmp_path: Path) -> None:
    losses = {0.1: [0.5], 0.5: [0.7], 1.0: [0.1]}
    sweep = tuned(tmp_path / "s", {0.1: 0.9, 0.5: 0.3, 1.0: 0.5}, losses, "beta")
    with pytest.raises(
        UserError, match=r"^--by validation/loss: its scale depends on dpo\.beta, .*; name validation/acc"
    ):
        ranked(sweep, "validation/loss")


def test_a_choice_by_test_or_by_nothing_is_refused(tmp_path: Path) -> None:
    sweep = tuned(tmp_path / "s", {0.1: 0.9, 0.5: 0.3}, {0.1: [0.5], 0.5: [0.7]})
    for by, message in (
        ("judge/mean", "measured on test"),
        ("validation/los", r"no run measured it \(nearest: validation/loss\)"),
        (None, "has 2 configurations; name the metric to choose by: validation/loss, validation/accuracy"),
    ):
        with pytest.raises(UserError, match=message):
            ranked(sweep, by)


def test_the_chosen_one_is_confirmed_on_seeds_that_nobody_chose_by(tmp_path: Path) -> None:
    sweep = tuned(tmp_path / "tuned", {0.1: 0.9, 0.5: 0.3}, {0.1: [0.5], 0.5: [0.7]})
    words = confirm_overrides(ranked(sweep, "validation/loss")[0], sweep, 3, "The best of 2, it's said.")
    assert words[-4] == "grid=null" and words[-2:] == ["seed=3,4,5", "sweep=tuned-confirm"]
    with composing():
        grid = expand(words, multirun=True, config_dir=None)
    assert [job.config.seed for job in grid.jobs] == [3, 4, 5] and grid.name == "tuned-confirm"
    assert {(job.config.method.name, job.config.stages.dpo.learning_rate) for job in grid.jobs} == {("dpo", 0.1)}
    assert {job.config.report.note for job in grid.jobs} == {"The best of 2, it's said."}


def test_two_runs_side_by_side_are_paired_over_prompts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 30))
    a = write_run(tmp_path / "s", "dpo", 1, {"kl/base": 1.0})
    b = write_run(tmp_path / "s", "dpo", 2, {"kl/base": 3.0}, **{"stages.dpo.beta": 0.25})
    write_completions(a, {"judge/mean": first.tolist()})
    write_completions(b, {"judge/mean": second.tolist()})
    where = console()
    diff(a, b, where)
    match = re.search(r"judge/mean .* (−?[\d.]+) ± ([\d.]+)", printed(where))
    low, high = scipy.stats.ttest_rel(second, first).confidence_interval(0.95)
    assert match
    assert float(match[1].replace("−", "-")) == pytest.approx((low + high) / 2, abs=1e-3)
    assert float(match[2]) == pytest.approx((high - low) / 2, abs=1e-3)
    assert re.search(r"stages\.dpo\.beta +0\.5 +0\.25", printed(where)) and re.search(r"seed +1 +2", printed(where))
    assert re.search(r"kl/base +1\.00 +3\.00 +2\.00\n", printed(where))
    assert "A [" in printed(where) and "Completion 0 of" in printed(where)


def test_diff_wants_two_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "s", "dpo", 1)
    write_run(tmp_path / "s", "dpo", 2)
    with pytest.raises(UserError, match="holds 2 runs; name the folder of one"):
        diff(tmp_path / "s", run, console())


def test_the_words_of_best_and_confirm() -> None:
    assert parse(["best", "a", "--by", "m"]) == ("best", {"sweep": Path("a"), "by": "m"})
    assert parse(["confirm", "--seeds=3", "a"]) == ("confirm", {"sweep": Path("a"), "by": None, "seeds": 3})
    for line, message in (
        ("best --by m", "best: needs SWEEP, as in: prefsweep best"),
        ("best a", "best: needs --by, as in: prefsweep best"),
        ("best a --by m --seeds 3", "--seeds: no such flag of best"),
        ("confirm a --seeds no", "--seeds: invalid int value: 'no'"),
        ("confirm a --seeds 0", "--seeds 0: must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            dispatch(line.split())


@pytest.mark.slow
def test_the_commands_on_a_sweep_that_was_run(tmp_path: Path) -> None:
    """`best` ranks by the histories and shows the first on test; `confirm` runs it alone on fresh seeds; `diff` takes
    two of its runs."""
    workplace = Workplace(tmp_path)
    rates = ("1e-5", "1e-2")
    done = workplace.run("-m", "method=sft", f"stages.sft.learning_rate={','.join(rates)}", "sweep=s", "tracking=off")
    assert done.returncode == 0
    runs = {run["config"]["stages"]["sft"]["learning_rate"]: run for run in runs_of(tmp_path / "multirun_sweeps/s")}
    losses = {}
    for rate, run in runs.items():
        folder = tmp_path / "outputs/stages/sft" / run["stages"]["sft"]
        rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        losses[rate] = [row["validation/loss"] for row in rows if "validation/loss" in row][-1]
    first, second = sorted(losses, key=lambda rate: losses[rate])
    chosen = workplace.command("best", "multirun_sweeps/s", "--by", "validation/loss")
    assert chosen.returncode == 0, chosen.stderr
    for number, rate in ((1, first), (2, second)):
        assert f"{number}  validation/loss {losses[rate]:.4f}  sft.learning_rate {rate:g}" in chosen.stdout
    assert f"{len(rates)} by validation/loss; below, what it reaches on test" in chosen.stdout

    confirmed = workplace.command("confirm", "multirun_sweeps/s", "--by", "validation/loss", "--seeds", "2")
    assert confirmed.returncode == 0, confirmed.stderr
    fresh = runs_of(tmp_path / "multirun_sweeps/s-confirm")
    assert {(run["config"]["seed"], run["config"]["stages"]["sft"]["learning_rate"]) for run in fresh} == {
        (2, first),
        (3, first),
    }
    table = (tmp_path / "multirun_sweeps/s-confirm/table.md").read_text()
    assert "On fresh seeds: the best of 2 configurations of s by validation/loss." in table

    one, other = sorted(path.parent for path in (tmp_path / "multirun_sweeps/s").glob("*/run.json"))
    compared = workplace.command("diff", str(one), str(other))
    assert compared.returncode == 0, compared.stderr
    assert "stages.sft.learning_rate" in compared.stdout and "judge/mean" in compared.stdout
    assert "A [" in compared.stdout and "B [" in compared.stdout


def runs_of(sweep: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sweep.glob("*/run.json")]
