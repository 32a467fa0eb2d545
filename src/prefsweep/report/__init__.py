"""run.json files → tables, figures, a page. Reads records only: it imports no torch and knows no training."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from prefsweep.errors import UserError
from prefsweep.pipeline.files import write_text
from prefsweep.report import versus as versus_rows
from prefsweep.report.choice import ranked
from prefsweep.report.completions import Completions, read_completions
from prefsweep.report.course import write_course
from prefsweep.report.curves import QUALITY
from prefsweep.report.figures import draw_figures
from prefsweep.report.page import to_html
from prefsweep.report.runs import metric_names, read_runs, records
from prefsweep.report.table import Table, comparable_sets, reason, table
from prefsweep.report.writers import print_lines, print_table, to_csv, to_latex, to_markdown

BESIDE: dict[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv}  # in a sweep's folder
FORMATS = {**BESIDE, "html": lambda result: to_html([result], "prefsweep", Path())}
PAGE = "report.html"


def report(folder: Path, console: Console | None = None) -> list[Path]:
    """Print the table of a sweep and its failures; write tables, figures and report.html into it.

    Runs that are not comparable have a table a set, table-2.md and so on. Returns what was written.
    """
    console = console or Console()
    runs = read_runs([folder])
    completions = read_completions(runs)
    sets = comparable_sets(runs, completions)
    if len(sets) > 1:
        say(console, f"the runs differ in {reason(sets, completions)}: a table each")
    suffixes = ["", *(f"-{count}" for count in range(2, len(sets) + 1))]
    parts = [report_set(*part, folder, completions, console) for part in zip(sets, suffixes, strict=True)]
    tables, comparisons, files = map(list, zip(*parts, strict=True))
    written = [path for of_set in files for path in of_set]
    figures = [path for path in written if path.suffix == ".png"]
    title, command = folder.resolve().name, read_manifest(folder)["command"]
    written += write_all({folder / PAGE: to_html(tables, title, folder, figures, command, comparisons)})
    print_failures(runs, console)
    for path in written:
        say(console, str(path))
    return written


def report_set(
    runs: pd.DataFrame, suffix: str, folder: Path, completions: Completions, console: Console
) -> tuple[Table, versus_rows.Versus | None, list[Path]]:
    """Print and write the table of comparable runs, its figures, and two of its rows against each other."""
    manifest = read_manifest(folder)
    layout, published = manifest["report"], manifest["published"]
    rows, metrics = layout.get("rows"), layout.get("metrics") or []
    if absent := [name for name in metrics if name not in metric_names(runs)]:
        say(console, f"report: no run has {', '.join(absent)}: not in the table")
        metrics = [name for name in metrics if name not in absent]
    try:
        result = table(runs, metrics or None, rows, published=published, completions=completions)
    except UserError as error:  # a layout that does not fit costs the layout, not the table
        say(console, f"report: {error}; the table is the default one")
        result = table(runs, published=published, completions=completions)
    result = replace(result, caption=" ".join([result.caption, *extra_sentences(folder, layout, console)]))
    print_table(result, console)
    texts = {folder / f"table{suffix}.{kind}": write(result) for kind, write in BESIDE.items()}
    is_unchanged = all(path.is_file() and path.read_text() == text for path, text in texts.items())
    has_scores = QUALITY in runs and runs.loc[runs["has_result"], QUALITY].notna().any()
    scores = table(runs, [QUALITY], completions=completions) if has_scores else None
    files = write_all(texts) + draw_figures(result, scores, folder, suffix, is_unchanged)
    files += write_course(result, folder, suffix)
    try:
        comparison = versus_rows.versus(result, layout["versus"]) if layout.get("versus") else None
    except UserError as error:
        say(console, str(error))
        comparison = None
    if comparison is not None:
        print_lines(comparison.header, comparison.texts(), 1, console)
        console.print(Text(comparison.note, style="dim"))
        writers = {"md": versus_rows.to_markdown, "csv": versus_rows.to_csv}
        files += write_all({folder / f"versus{suffix}.{kind}": write(comparison) for kind, write in writers.items()})
    return result, comparison, files


def extra_sentences(folder: Path, layout: Mapping[str, Any], console: Console) -> Iterator[str]:
    """Yield the best configuration by a metric of validation, and a note, where the experiment has them."""
    if by := layout.get("best_by"):
        try:
            choices = ranked(folder, by)
            yield f"The best of {len(choices)} by {by} is {choices[0].words} ({choices[0].value_text})."
        except UserError as error:  # costs the sentence alone
            say(console, f"report: {error}; the caption names no best one")
    if layout.get("note"):
        yield layout["note"]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what the sweep's driver wrote of it; the layout and published numbers of the experiment among it."""
    path = folder / "sweep.json"
    manifest = json.loads(path.read_text()) if path.is_file() else {}  # a folder of runs that no sweep made
    return {"command": "", "report": {}} | manifest | {"published": manifest.get("published") or ()}


def table_of(
    folders: Sequence[Path], layout: Mapping[str, Any], kind: str | None, out: Path | None, console: Console
) -> list[Path]:
    """Make one table of several folders: on the terminal, in a format, or written into `out`.

    `layout` holds the `metrics`, `rows` and `across` of `table`.
    """
    published = [entry for folder in folders for entry in read_manifest(folder)["published"]]
    result = table(read_runs(folders), **layout, published=published)
    if out is not None:
        return write_all({out / f"table.{name}": FORMATS[name](result) for name in ([kind] if kind else FORMATS)})
    if kind is None:
        print_table(result, console)
    else:
        console.file.write(FORMATS[kind](result))
    return []


def write_all(texts: Mapping[Path, str]) -> list[Path]:
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def print_failures(runs: pd.DataFrame, console: Console) -> None:
    """Print a line for each run that failed or diverged: its name and the last line of its error."""
    for run in records(runs[runs["status"].isin(["failed", "diverged"])]):
        reason = str(run["error"]).strip().splitlines()[-1].strip()
        console.print(Text.assemble((run["status"], "bold red"), f" {run['name']}: {reason}"), soft_wrap=True)


def say(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)
