"""run.json files → tables, figures, a page. Reads records only: it imports no torch and knows no training."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from prefsweep.errors import UserError
from prefsweep.pipeline.files import write_text
from prefsweep.report import versus as versus_rows
from prefsweep.report.choice import ranked
from prefsweep.report.completions import Completions, read_completions
from prefsweep.report.course import course_table
from prefsweep.report.curves import QUALITY
from prefsweep.report.figures import draw_figures
from prefsweep.report.page import to_html
from prefsweep.report.runs import metric_names, read_runs, records
from prefsweep.report.table import Table, comparable_sets, default_metrics, reason, table
from prefsweep.report.writers import print_lines, print_table, to_csv, to_latex, to_markdown

BESIDE: dict[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv}  # in a sweep's folder
FORMATS = {**BESIDE, "html": lambda result: to_html([result], "prefsweep", Path())}


def report(folder: Path, console: Console | None = None) -> list[Path]:
    """Print the table of a sweep and its failures; write tables, figures and report.html into it.

    Runs that are not comparable have a table a set, table-2.md and so on. Returns what was written.
    """
    console = console or Console()
    runs, manifest = read_runs([folder]), read_manifest(folder)
    completions = read_completions(runs)
    sets = comparable_sets(runs, completions)
    if len(sets) > 1:
        console.out(f"the runs differ in {reason(sets, completions)}: a table each")
    tables, comparisons, written = [], [], []
    for number, part in enumerate(sets, 1):
        suffix = f"-{number}" if number > 1 else ""
        result = laid_out(part, manifest, folder, completions, console)
        texts = {f"table{suffix}.{kind}": write(result) for kind, write in BESIDE.items()}
        if course := course_table(result):
            texts |= {f"course{suffix}.md": to_markdown(course), f"course{suffix}.csv": to_csv(course)}
        comparison = None
        with printed_mistakes(console, "no versus.md"):
            comparison = versus_rows.versus(result, names) if (names := manifest["report"].get("versus")) else None
        if comparison:
            print_lines(comparison.header, comparison.texts(), 1, comparison.note, console)
            texts[f"versus{suffix}.md"] = versus_rows.to_markdown(comparison)
            texts[f"versus{suffix}.csv"] = versus_rows.to_csv(comparison)
        paths = {folder / name: text for name, text in texts.items()}
        is_unchanged = all(path.is_file() and path.read_text() == text for path, text in paths.items())
        has_scores = QUALITY in default_metrics(part)
        scores = table(part, [QUALITY], result.keys, completions=completions) if has_scores else None
        written += write_all(paths) + draw_figures(result, scores, folder, suffix, is_unchanged, course)
        tables.append(result)
        comparisons.append(comparison)
    figures = [path for path in written if path.suffix == ".png"]
    page = to_html(tables, folder.resolve().name, folder, figures, manifest["command"], comparisons)
    written += write_all({folder / "report.html": page})
    for run in records(runs[runs["status"].isin(["failed", "diverged"])]):
        console.out(run["status"], style="bold red", end=" ")
        console.out(f"{run['name']}: {str(run['error']).strip().splitlines()[-1].strip()}")
    for path in written:
        console.out(path)
    return written


def laid_out(
    runs: pd.DataFrame, manifest: Mapping[str, Any], folder: Path, completions: Completions, console: Console
) -> Table:
    """Print and return the table of comparable runs as the experiment lays it out."""
    layout, published = manifest["report"], manifest["published"]
    metrics = layout.get("metrics") or []
    if absent := [name for name in metrics if name not in metric_names(runs)]:
        console.out(f"report: no run has {', '.join(absent)}: not in the table")
        metrics = [name for name in metrics if name not in absent]
    result, sentences = None, []
    with printed_mistakes(console, "the table is the default one"):
        result = table(runs, metrics or None, layout.get("rows"), published=published, completions=completions)
    result = result or table(runs, published=published, completions=completions)
    if by := layout.get("best_by"):
        with printed_mistakes(console, "the caption names no best one"):
            choices = ranked(folder, by)
            sentences = [f"The best of {len(choices)} by {by} is {choices[0].words} ({choices[0].value_text})."]
    result = replace(result, caption=" ".join(filter(None, [result.caption, *sentences, layout.get("note")])))
    print_table(result, console)
    return result


@contextmanager
def printed_mistakes(console: Console, consequence: str) -> Iterator[None]:
    """Print a mistake in the experiment's layout, which costs its part of the report and nothing else."""
    try:
        yield
    except UserError as error:
        console.out(f"report: {error}; {consequence}")


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
