"""The best configuration of a sweep: chosen by what its training stage measured on validation, reported on test."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from prefsweep.errors import UserError, nearest
from prefsweep.report.formatting import NOTHING, key_heading, setting_text
from prefsweep.report.metrics import METRICS, metric
from prefsweep.report.runs import Run, groups, is_number, metric_names, read_runs, records, stage_rows, varying
from prefsweep.report.table import table
from prefsweep.report.writers import print_table

VALIDATION = "validation/"
JUDGED = "validation/judge"  # the one that means the same whatever was trained
HISTORY = "history.jsonl"
# Settings on which the scale of a metric of validation depends, by the ends of their keys.
LOSS = ("loss", "loss_weights", "completion_only_loss", "label_smoothing", "use_weighting", "ld_alpha", "discopop_tau")
SCALES = {
    "validation/loss": ("beta", "desirable_weight", "undesirable_weight", "f_divergence", "f_alpha", *LOSS),
    "validation/margin": ("beta",),
    "validation/objective": ("kl_coef", "adaptive_kl_target", "score_normalisation"),
}


@dataclass(frozen=True, eq=False)
class Choice:
    """A configuration, its runs, and the mean of the metric over them; NaN where none of them measured it."""

    keys: dict[str, Any]
    runs: pd.DataFrame
    value: float

    @property
    def words(self) -> str:
        return ", ".join(setting_text(*item) for item in self.keys.items()) or "the only one"

    @property
    def value_text(self) -> str:
        return NOTHING if isnan(self.value) else f"{self.value:.4f}"


def ranked(folder: Path, by: str | None) -> list[Choice]:
    """Return the configurations of a sweep, the best first. One that failed in part is ranked by what remains."""
    runs = read_runs([folder])
    keys = varying(runs)
    histories = [history(run) if run["has_result"] else [] for run in records(runs)]
    values = [of_kept_state(run, rows, by or "") for run, rows in zip(records(runs), histories, strict=True)]
    runs = runs.assign(value=pd.Series(values, dtype=float))
    configurations = groups(runs, keys)
    measured = {name for rows in histories for row in rows for name in row if name.startswith(VALIDATION)}
    if by is not None:
        refuse_unfit(by, runs, keys, sorted(measured))
    elif len(configurations) > 1:
        problem = f"{folder} has {len(configurations)} configurations; name the metric to choose by"
        raise UserError(f"--by: {problem}: {names_of(sorted(measured))}")
    choices = [Choice(dict(zip(keys, of, strict=True)), part, part["value"].mean()) for of, part in configurations]
    sign = metric(by or "").sign or 1
    return sorted(choices, key=lambda choice: (isnan(choice.value), -sign * choice.value))


def refuse_unfit(by: str, runs: pd.DataFrame, keys: Sequence[str], measured: Sequence[str]) -> None:
    """Raise a UserError for a metric by which these runs cannot be compared; `value` is what they have of it."""
    stages = sorted(runs.loc[runs["value"].notna(), "result"].unique())
    scales = [key for key in keys if key.rpartition(".")[2] in SCALES.get(by, ())]
    problem, better = "", measured
    if by in metric_names(runs):
        problem = "is measured on test, where the best of many flatters itself"
    elif not stages:
        problem = f"no run measured it{nearest(by, measured)}"
    elif scales:
        problem = f"its scale depends on {key_heading(scales[0])}, which varies here"
        better = [name for name in measured if scales[0].rpartition(".")[2] not in SCALES.get(name, ())] or [JUDGED]
    elif len(stages) > 1 and by != JUDGED:
        raise UserError(f"--by {by}: of {' and of '.join(stages)} are two measures; name a sweep of one method")
    if problem:
        raise UserError(f"--by {by}: {problem}; name {names_of(better)}")


def names_of(measured: Sequence[str]) -> str:
    """Return the metrics of validation that the registry knows; where it knows none of them, all."""
    known = [name for name in METRICS if name in measured] or measured
    return ", ".join(known) or "one of validation: these runs measured none (stages.<name>.evaluate_every)"


def history(run: Run) -> list[Run]:
    """Return the rows of the stage that ends the method; its validations with the judge's mean score of them."""
    judged = {row["step"]: {JUDGED: row[JUDGED]} for row in stage_rows(run, run["inputs"].get("validated"), HISTORY)}
    return [
        row | judged.get(row["step"], {}) if any(name.startswith(VALIDATION) for name in row) else row
        for row in stage_rows(run, run["result"], HISTORY)
    ]


def of_kept_state(run: Run, rows: list[Run], by: str) -> float:
    """Return the metric on validation of the state that the run kept: the last one, or the best by what chose it."""
    rows = [row for row in rows if is_number(row.get(by))]
    if not rows:
        return nan
    stage = f"stages.{run['result'].partition('/')[0]}"
    chosen_by = f"{VALIDATION}{run.get(f'{stage}.best_by')}"
    if run.get(f"{stage}.checkpoint") == "best" and all(chosen_by in row for row in rows):
        sign = metric(chosen_by).sign or 1
        return float(max(rows, key=lambda row: sign * row[chosen_by])[by])
    return float(rows[-1][by])


def best(folder: Path, by: str | None, console: Console) -> tuple[Choice, int]:
    """Print the ranking by validation and the test table of the first; return it, and of how many it is the best."""
    choices = ranked(folder, by)
    for rank, choice in enumerate(choices[:10], 1):
        console.out(f"{rank:>3}  {by or ''} {choice.value_text}  {choice.words}")
    console.out(f"best of {len(choices)} by {by or 'itself'}; below, what it reaches on test")
    print_table(table(choices[0].runs), console)
    return choices[0], len(choices)
