"""Two runs side by side: what their configs differ in, their metrics paired over prompts, and their completions."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.text import Text

from prefsweep.errors import UserError
from prefsweep.pipeline.files import read_jsonl
from prefsweep.report.cells import difference, make_cell
from prefsweep.report.completions import SAMPLES, Completions, read_completions
from prefsweep.report.formatting import decimals_for, number, value_text
from prefsweep.report.metrics import metric
from prefsweep.report.runs import NAMES, Run, metric_names, read_runs, records, run_files, setting_names, stage_file
from prefsweep.report.table import comparable_sets, reason
from prefsweep.report.writers import print_lines

PROMPTS = 5
NOTE = (
    "difference: B − A ± half-width of its 95% interval over prompts, paired; of two single runs, so that other seeds "
    "may differ by more. Without an interval: no values of single completions."
)


def diff(first: Path, second: Path, console: Console) -> None:
    refuse_several(first)
    refuse_several(second)
    runs = read_runs([first, second]).iloc[[0, -1]]  # one row where both are one run
    for letter, run in zip("AB", records(runs), strict=True):
        console.print(Text(f"{letter}: {run['name']} ({run['status']})"), soft_wrap=True)
    print_part(["config", "A", "B"], list(setting_lines(runs)), "their configs are equal", console)
    completions = read_completions(runs)
    sets = comparable_sets(runs, completions)
    if len(sets) > 1:
        note = f"they differ in {reason(sets, completions)}: their metrics are not comparable"
        console.print(Text(note), soft_wrap=True)
    lines = list(metric_lines(runs, completions))
    print_part(["metric", "A", "B", "difference"], lines, "no metric in common", console)
    console.print(Text(NOTE, style="dim"))
    for prompt, *both in islice(completions_of_both(*records(runs)), PROMPTS):
        console.print(Text(f"\n{prompt}", style="italic"))
        for letter, text in zip("AB", both, strict=True):
            console.print(Text.assemble((f"{letter} ", "bold"), text))


def refuse_several(folder: Path) -> None:
    files = run_files(folder)
    if len(files) > 1:
        raise UserError(f"diff: {folder} holds {len(files)} runs; name the folder of one, such as {files[0].parent}")


def setting_lines(runs: pd.DataFrame) -> Iterator[list[str]]:
    for key in ["seed", *NAMES, *setting_names(runs)]:
        a, b = runs[key]
        if a != b:
            yield [key, value_text(a), value_text(b)]


def metric_lines(runs: pd.DataFrame, completions: Completions) -> Iterator[list[str]]:
    for name in metric_names(runs):
        if runs[name].isna().any():
            continue
        a, b = runs[name]
        decimals = decimals_for([a, b])
        cells = [make_cell(runs.iloc[[row]], metric(name), completions) for row in (0, 1)]
        estimate = difference(cells[1], cells[0], [(0, 0)]) if all(cell.values for cell in cells) else None
        interval = "" if estimate is None else f" ± {number(estimate.half_width, decimals)}"
        yield [name, number(a, decimals), number(b, decimals), number(b - a, decimals) + interval]


def completions_of_both(a: Run, b: Run) -> Iterator[tuple[str, str, str]]:
    """Yield the prompts that both completed, with the first completion of each."""
    paths = [stage_file(run, run["target"], SAMPLES) for run in (a, b)]
    if paths[0] is None or paths[1] is None:
        return
    others: dict[str, str] = {}
    for row in read_jsonl(paths[1]):
        others.setdefault(row["id"], with_score(row))
    for row in read_jsonl(paths[0]):
        if (other := others.pop(row["id"], None)) is not None:
            yield row["prompt"], with_score(row), other


def with_score(row: Run) -> str:
    score = (row.get("scores") or {}).get("score")
    return (f"[{number(score, 3)}]" if isinstance(score, int | float) else "") + str(row["completion"])


def print_part(header: list[str], lines: list[list[str]], nothing: str, console: Console) -> None:
    if lines:
        print_lines(header, lines, 1, console)
    else:
        console.print(Text(nothing, style="dim"))
