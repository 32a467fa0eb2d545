"""Two runs side by side: what their configs differ in, their metrics paired over prompts, and their completions."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.text import Text

from prefsweep.errors import UserError
from prefsweep.report.cells import difference, make_cell
from prefsweep.report.completions import Completions, first_samples, read_completions
from prefsweep.report.formatting import decimals_for, number, value_text
from prefsweep.report.metrics import metric
from prefsweep.report.runs import NAMES, Run, metric_names, read_runs, records, run_files, setting_names
from prefsweep.report.table import comparable_sets, reason
from prefsweep.report.writers import print_lines

PROMPTS = 5
NOTE = (
    "difference: B − A ± half-width of its 95% interval over prompts, paired; of two single runs, so that other seeds "
    "may differ by more. Without an interval: no values by prompt group."
)


def diff(first: Path, second: Path, console: Console) -> None:
    for folder in (first, second):
        files = run_files(folder)
        if len(files) > 1:
            raise UserError(f"diff: {folder} holds {len(files)} runs; name the folder of one, as {files[0].parent}")
    runs = read_runs([first, second]).iloc[[0, -1]]  # one row where both are one run
    for letter, run in zip("AB", records(runs), strict=True):
        console.print(Text(f"{letter}: {run['name']} ({run['status']})"), soft_wrap=True)
    print_part(["config", "A", "B"], setting_lines(runs), "their configs are equal", console)
    completions = read_completions(runs)
    sets = comparable_sets(runs, completions)
    if len(sets) > 1:
        note = f"they differ in {reason(sets, completions)}: their metrics are not comparable"
        console.print(Text(note), soft_wrap=True)
    print_part(["metric", "A", "B", "difference"], metric_lines(runs, completions), "no metric in common", console)
    console.print(Text(NOTE, style="dim"))
    for prompt, *completed in islice(completed_by_both(*records(runs)), PROMPTS):
        console.print(Text(f"\n{prompt}", style="italic"))
        for letter, text in zip("AB", completed, strict=True):
            console.print(Text.assemble((f"{letter} ", "bold"), text))


def print_part(header: list[str], lines: Iterator[list[str]], otherwise: str, console: Console) -> None:
    if rows := list(lines):
        print_lines(header, rows, 1, console)
    else:
        console.print(Text(otherwise, style="dim"))


def setting_lines(runs: pd.DataFrame) -> Iterator[list[str]]:
    for key in ["seed", *NAMES, *setting_names(runs)]:
        a, b = runs[key]
        if a != b:
            yield [key, value_text(a), value_text(b)]


def metric_lines(runs: pd.DataFrame, completions: Completions) -> Iterator[list[str]]:
    runs = runs.assign(is_seedless=True)  # the two are paired whatever their seeds
    for name in metric_names(runs):
        a, b = runs[name]
        if a == a and b == b:  # neither is NaN
            decimals = decimals_for([a, b])
            estimate = difference(*(make_cell(runs.iloc[[row]], metric(name), completions) for row in (1, 0)))
            interval = "" if estimate is None else f" ± {number(estimate.half_width, decimals)}"
            yield [name, number(a, decimals), number(b, decimals), number(b - a, decimals) + interval]


def completed_by_both(a: Run, b: Run) -> Iterator[tuple[str, str, str]]:
    """Yield the prompts that both completed, with the first completion of each after its score."""
    others = first_samples(b)
    for identity, row in first_samples(a).items():
        if identity in others:
            texts = (f"[{number(of['scores']['score'], 3)}]{of['completion']}" for of in (row, others[identity]))
            yield row["prompt"], *texts
