"""Two runs side by side: what their configs differ in, their metrics paired over prompts, and their completions."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
from rich.console import Console

from prefsweep.errors import UserError
from prefsweep.report.cells import difference, make_cell
from prefsweep.report.completions import Completions, first_samples, read_completions
from prefsweep.report.formatting import decimals_for, number, value_text
from prefsweep.report.metrics import metric
from prefsweep.report.runs import NAMES, metric_names, read_runs, records, run_files, setting_names
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
    a, b = records(runs)
    for letter, run in (("A", a), ("B", b)):
        console.out(f"{letter}: {run['name']} ({run['status']})")
    keys = [key for key in ["seed", *NAMES, *setting_names(runs)] if a[key] != b[key]]
    settings = [[key, value_text(a[key]), value_text(b[key])] for key in keys]
    print_lines(["config", "A", "B"], settings, 1, f"{len(keys)} settings differ", console)
    completions = read_completions(runs)
    sets = comparable_sets(runs, completions)
    if len(sets) > 1:
        console.out(f"they differ in {reason(sets, completions)}: their metrics are not comparable")
    metrics = list(metric_lines(runs, completions))
    print_lines(["metric", "A", "B", "difference"], metrics, 1, NOTE if metrics else "no metric in common", console)
    samples, others = first_samples(a), first_samples(b)
    for identity in islice((identity for identity in samples if identity in others), PROMPTS):
        console.out(f"\n{samples[identity]['prompt']}", style="italic")
        for letter, sample in (("A", samples[identity]), ("B", others[identity])):
            console.out(f"{letter} [{number(sample['scores']['score'], 3)}]{sample['completion']}")


def metric_lines(runs: pd.DataFrame, completions: Completions) -> Iterator[list[str]]:
    runs = runs.assign(is_seedless=True)  # the two are paired whatever their seeds
    for name in metric_names(runs):
        a, b = runs[name]
        if a == a and b == b:  # neither is NaN
            decimals = decimals_for([a, b])
            estimate = difference(*(make_cell(runs.iloc[[row]], metric(name), completions) for row in (1, 0)))
            interval = "" if estimate is None else f" ± {number(estimate.half_width, decimals)}"
            yield [name, number(a, decimals), number(b, decimals), number(b - a, decimals) + interval]
