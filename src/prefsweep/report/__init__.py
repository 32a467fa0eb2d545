"""run.json files → tables, figures, a page. Reads records only: it imports no torch and knows no training."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from prefsweep.report.curves import QUALITY
from prefsweep.report.figures import draw_figures
from prefsweep.report.page import to_html
from prefsweep.report.runs import metric_names, read_runs, records
from prefsweep.report.table import Table, comparable_sets, reason, table
from prefsweep.report.writers import print_lines, print_table, to_csv, to_latex, to_markdown

FORMATS: dict[str, Callable[[Table], str]] = {
    "md": to_markdown,
    "tex": to_latex,
    "csv": to_csv,
    "html": lambda result: to_html([result], "prefsweep", Path()),
}
BESIDE = ("md", "tex", "csv")  # what a sweep's folder gets; its page is report.html
PAGE = "report.html"


@dataclass(frozen=True)
class Layout:
    """What a table shows where it is not left to the runs: keys of rows, keys over columns, metrics; and beside it."""

    rows: Sequence[str] | None = None
    columns: Sequence[str] = ()
    metrics: Sequence[str] | None = None
    versus: Sequence[str] | None = None
    best_by: str | None = None
    note: str | None = None
    published: Sequence[Mapping[str, Any]] = ()

    def table(self, runs: pd.DataFrame, completions: Completions) -> Table:
        return table(runs, self.metrics, self.rows, self.columns, self.published, completions)


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
    tables, comparisons, written = [], [], []
    for count, members in enumerate(sets, 1):
        suffix = "" if count == 1 else f"-{count}"
        result, comparison, files = report_set(members, folder, suffix, completions, console)
        tables.append(result)
        comparisons.append(comparison)
        written += files
    figures = [path for path in written if path.suffix == ".png"]
    command = read_manifest(folder).get("command", "")
    write_text(folder / PAGE, to_html(tables, folder.resolve().name, folder, figures, command, comparisons))
    written.append(folder / PAGE)
    print_failures(runs, console)
    for path in written:
        say(console, str(path))
    return written


def report_set(
    runs: pd.DataFrame, folder: Path, suffix: str, completions: Completions, console: Console
) -> tuple[Table, versus_rows.Versus | None, list[Path]]:
    """Print and write the table of comparable runs, its figures, and two of its rows against each other."""
    layout = read_layout(folder)
    if absent := [name for name in layout.metrics or () if name not in metric_names(runs)]:
        say(console, f"report: no run has {', '.join(absent)}: not in the table")
        layout = replace(layout, metrics=[name for name in layout.metrics or () if name not in absent] or None)
    try:
        result = layout.table(runs, completions)
    except UserError as error:  # a layout that does not fit costs the layout, not the table
        say(console, f"report: {error}; the table is the default one")
        result = Layout(published=layout.published).table(runs, completions)
    result = replace(result, caption=" ".join([result.caption, *extra_sentences(folder, layout, console)]))
    print_table(result, console)
    texts = {folder / f"table{suffix}.{kind}": FORMATS[kind](result) for kind in BESIDE}
    is_unchanged = all(path.is_file() and path.read_text() == text for path, text in texts.items())
    for path, text in texts.items():
        write_text(path, text)
    has_scores = QUALITY in runs and runs.loc[runs["has_result"], QUALITY].notna().any()
    scores = table(runs, [QUALITY], completions=completions) if has_scores else None
    figures = draw_figures(result, scores, folder, suffix, is_unchanged)
    comparison, files = compare(result, layout.versus, folder / f"versus{suffix}", console)
    return result, comparison, [*texts, *figures, *files]


def compare(
    result: Table, names: Sequence[str] | None, path: Path, console: Console
) -> tuple[versus_rows.Versus | None, list[Path]]:
    """Print and write two rows against each other, where the experiment names them."""
    if not names:
        return None, []
    try:
        comparison = versus_rows.versus(result, names)
    except UserError as error:
        say(console, str(error))
        return None, []
    print_lines(comparison.header, comparison.texts(), 1, console)
    console.print(Text(comparison.note, style="dim"))
    texts = {"md": versus_rows.to_markdown(comparison), "csv": versus_rows.to_csv(comparison)}
    files = {path.with_name(f"{path.name}.{kind}"): text for kind, text in texts.items()}
    for file, text in files.items():
        write_text(file, text)
    return comparison, list(files)


def extra_sentences(folder: Path, layout: Layout, console: Console) -> list[str]:
    """The best configuration by a metric of validation, and a note, where the experiment has them."""
    sentences = []
    if layout.best_by is not None:
        try:
            choices = ranked(folder, layout.best_by)
            first = f"{choices[0].words} ({choices[0].value_text})"
            sentences.append(f"The best of {len(choices)} by {layout.best_by} is {first}.")
        except UserError as error:  # costs the sentence alone
            say(console, f"report: {error}; the caption names no best one")
    return [*sentences, *([layout.note] if layout.note is not None else [])]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the sweep's driver wrote down of it; nothing for a folder that no sweep result."""
    path = folder / "sweep.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def read_layout(folder: Path) -> Layout:
    """What the experiment says under `report:` and `published:`."""
    manifest = read_manifest(folder)
    settings = manifest.get("report") or {}
    known: dict[str, Any] = {name: settings.get(name) for name in ("rows", "metrics", "versus", "best_by", "note")}
    return Layout(**known, published=manifest.get("published") or ())


def table_of(
    folders: Sequence[Path], layout: Layout, kind: str | None, out: Path | None, console: Console
) -> list[Path]:
    """One table of several folders: on the terminal, in a format, or written into `out`."""
    runs = read_runs(folders)
    published = [entry for folder in folders for entry in read_layout(folder).published]
    result = replace(layout, published=published).table(runs, read_completions(runs))
    if out is None:
        if kind is None:
            print_table(result, console)
        else:
            console.file.write(FORMATS[kind](result))
        return []
    paths = {name: out / f"table.{name}" for name in ([kind] if kind else FORMATS)}
    for name, path in paths.items():
        write_text(path, FORMATS[name](result))
    return list(paths.values())


def print_failures(runs: pd.DataFrame, console: Console) -> None:
    """A line for each run that failed or diverged: its name and the last line of its error."""
    for run in records(runs[runs["status"].isin(["failed", "diverged"])]):
        lines = str(run["error"] or "").strip().splitlines() or ["no error was recorded"]
        line = Text.assemble((run["status"], "bold red"), f" {run['name']}: {lines[-1].strip()}")
        console.print(line, soft_wrap=True)


def say(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)
