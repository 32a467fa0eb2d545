"""The best configuration of a sweep: chosen by what its training stage measured on validation, reported on test."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.text import Text

from prefsweep.errors import UserError, nearest
from prefsweep.report.columns import NOTHING, key_heading, value_text
from prefsweep.report.completions import stage_folder
from prefsweep.report.frame import Run, groups, is_number, read_runs, varying
from prefsweep.report.render import print_table
from prefsweep.report.table import table

PREFIX = "validation/"
JUDGED = "validation/judge"  # of the stage `validate`: the one that means the same whatever was trained
USUAL = ("validation/loss", "validation/score", "validation/margin", "validation/accuracy", JUDGED)
LESS = ("loss", "calibration_error", "perplexity")


@dataclass(frozen=True)
class Choice:
    """A configuration, its runs, and the mean of the metric over them; None where none of them measured it."""

    keys: dict[str, object]
    runs: tuple[Run, ...]
    value: float | None

    @property
    def words(self) -> str:
        return (
            ", ".join(f"{key_heading(key)} {value_text(value)}" for key, value in self.keys.items()) or "the only one"
        )


def ranked(folder: Path, by: str | None) -> list[Choice]:
    """The configurations of a sweep, the best first. One that failed in part is ranked by what remains."""
    runs = read_runs([folder])
    keys = varying(runs)
    found = groups(runs, keys)
    if by is None and len(found) > 1:
        raise UserError(
            f"--by: {folder} has {len(found)} configurations; say by which metric to choose, as {known(runs)}"
        )
    if by is not None:
        refuse(by, runs)
    made = []
    for group in found:
        values = [value for run in group if by and run.has_result and (value := kept_value(run, by)) is not None]
        config = {key: group[0].value(key) for key in keys}
        made.append(Choice(config, tuple(group), fmean(values) if values else None))
    sign = 1 if by and by.removeprefix(PREFIX).startswith(LESS) else -1
    return sorted(made, key=lambda choice: (choice.value is None, sign * (choice.value or 0.0)))


def refuse(by: str, runs: Sequence[Run]) -> None:
    """Metrics of the test split, those that nobody measured, and those that mean other things in other stages."""
    if any(by in run.metrics for run in runs):
        raise UserError(f"--by {by}: is measured on test, where the best of many flatters itself; say {known(runs)}")
    having = [run for run in runs if run.has_result and kept_value(run, by) is not None]
    if not having:
        names = sorted({name for run in runs for name in measured(run)})
        raise UserError(f"--by {by}: no run measured it{nearest(by, names)}; say {known(runs)}")
    stages = sorted({result_role(run) for run in having})
    if len(stages) > 1 and by != JUDGED:
        raise UserError(f"--by {by}: of {' and of '.join(stages)} are two measures; name a sweep of one method")


def known(runs: Sequence[Run]) -> str:
    there = {name for run in runs for name in measured(run)}
    names = [name for name in USUAL if name in there] or sorted(there)
    return ", ".join(names) or "one of validation: these runs measured none (stages.<name>.evaluate_every)"


def result_role(run: Run) -> str:
    return str((run.config.get("method") or {}).get("result") or "")


def history(run: Run) -> list[dict[str, float]]:
    """Of the stage that ends the method; its validations with what the judge said of their answers."""
    said = {row["step"]: row[JUDGED] for row in rows_of(run, "judge_validation") if JUDGED in row}
    return [
        row | {JUDGED: said[row["step"]]} if row["step"] in said and any(map(is_validation, row)) else row
        for row in rows_of(run, result_role(run))
    ]


def is_validation(metric: str) -> bool:
    return metric.startswith(PREFIX)


def rows_of(run: Run, role: str) -> list[dict[str, float]]:
    folder = stage_folder(run, role)
    path = folder / "history.jsonl" if folder else None
    return [json.loads(line) for line in path.read_text().splitlines()] if path and path.is_file() else []


def measured(run: Run) -> set[str]:
    return {name for row in history(run) for name in row if is_validation(name)} if run.has_result else set()


def kept_value(run: Run, by: str) -> float | None:
    """On validation, of the state that the run kept: the last one, or the best by the metric that chose it."""
    rows = [row for row in history(run) if is_number(row.get(by))]
    if not rows:
        return None
    said = run.config["stages"].get(result_role(run).partition("/")[0], {})
    chosen_by = f"{PREFIX}{said.get('best_by')}"
    if said.get("checkpoint") == "best" and all(chosen_by in row for row in rows):
        pick = min if chosen_by.removeprefix(PREFIX).startswith(LESS) else max
        return pick(rows, key=lambda row: row[chosen_by])[by]
    return rows[-1][by]


def best(folder: Path, by: str | None, console: Console) -> tuple[Choice, int]:
    """Print the ranking by validation, and the test table of the first alone; it, and of how many it is the best."""
    choices = ranked(folder, by)
    for place, choice in enumerate(choices[:10], 1):
        value = NOTHING if choice.value is None else f"{choice.value:.4f}"
        console.print(Text(f"{place:>3}  {by or ''} {value}  {choice.words}"), soft_wrap=True)
    console.print(Text(f"best of {len(choices)} by {by or 'itself'}; below, what it reaches on test"), soft_wrap=True)
    print_table(table(choices[0].runs), console)
    return choices[0], len(choices)
