"""Two runs side by side: what their configs differ in, their metrics paired over prompts, and their answers."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from prefsweep.errors import UserError
from prefsweep.report.cell import make_cell
from prefsweep.report.columns import decimals_for, number, value_text
from prefsweep.report.comparable import comparable_sets, reason
from prefsweep.report.completions import read_rows, samples_of
from prefsweep.report.frame import Run, read_runs
from prefsweep.report.significance import difference_of_runs
from prefsweep.report.table import Left, read_all

PROMPTS = 5
NOTE = (
    "difference: B − A ± half-width of its 95% interval over prompts, paired; of two single runs, so that other seeds "
    "may differ by more. Without an interval: no values of single answers."
)


def diff(first: Path, second: Path, console: Console) -> None:
    a, b = the_run(first), the_run(second)
    for name, run in (("A", a), ("B", b)):
        console.print(Text(f"{name}: {run.name} ({run.status})"), soft_wrap=True)
    print_lines(console, ("config", "A", "B"), list(settings_lines(a, b)), "their configs are equal")
    completions = read_all([a, b])
    sets = comparable_sets([a, b], completions)
    if len(sets) > 1:
        console.print(
            Text(f"they differ in {reason(sets, completions)}: their metrics are not comparable"), soft_wrap=True
        )
    print_lines(
        console, ("metric", "A", "B", "difference"), list(metric_lines(a, b, completions)), "no metric in common"
    )
    console.print(Text(NOTE, style="dim"))
    for prompt, ours, theirs in islice(completions_of_both(a, b), PROMPTS):
        console.print(Text(f"\n{prompt}", style="italic"))
        console.print(Text.assemble(("A ", "bold"), ours))
        console.print(Text.assemble(("B ", "bold"), theirs))


def the_run(folder: Path) -> Run:
    runs = read_runs([folder])
    if len(runs) > 1:
        raise UserError(f"diff: {folder} holds {len(runs)} runs; name the folder of one, such as {runs[0].folder}")
    return runs[0]


def settings_lines(a: Run, b: Run) -> Iterator[tuple[str, ...]]:
    ours, theirs = ({"seed": run.seed, **run.names, **run.settings} for run in (a, b))
    for key in dict.fromkeys([*ours, *theirs]):
        if ours.get(key) != theirs.get(key):
            yield key, value_text(ours.get(key)), value_text(theirs.get(key))


def metric_lines(a: Run, b: Run, completions: Left) -> Iterator[tuple[str, ...]]:
    for metric in a.metrics:
        if metric not in b.metrics:
            continue
        values = a.metrics[metric], b.metrics[metric]
        decimals = decimals_for(values)
        found = difference_of_runs(make_cell([b], metric, completions), make_cell([a], metric, completions))
        interval = "" if found is None else f" ± {number(found.half_width, decimals)}"
        yield metric, *(number(v, decimals) for v in values), number(values[1] - values[0], decimals) + interval


def completions_of_both(a: Run, b: Run) -> Iterator[tuple[str, str, str]]:
    """The first answers to the prompts that both have."""
    paths = samples_of(a), samples_of(b)
    if paths[0] is None or paths[1] is None:
        return
    theirs: dict[Any, str] = {}
    for row in read_rows(paths[1]):
        theirs.setdefault(row["id"], scored(row))
    for row in read_rows(paths[0]):
        if (other := theirs.pop(row["id"], None)) is not None:
            yield row["prompt"], scored(row), other


def scored(row: dict[str, Any]) -> str:
    score = (row.get("scores") or {}).get("score")
    return (f"[{number(score, 3)}]" if isinstance(score, int | float) else "") + str(row["completion"])


def print_lines(console: Console, header: tuple[str, ...], lines: list[tuple[str, ...]], nothing: str) -> None:
    if not lines:
        console.print(Text(nothing, style="dim"))
        return
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(header):
        table.add_column(name, overflow="fold", justify="right" if place and header[0] == "metric" else "left")
    for line in lines:
        table.add_row(*map(Text, line))
    console.print(table)
