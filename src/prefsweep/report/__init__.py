"""run.json files → tables, figures, a page. Reads records only: it imports no torch and knows no training."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from prefsweep.errors import UserError
from prefsweep.pipeline.files import write_text
from prefsweep.report.choice import ranked
from prefsweep.report.columns import NOTHING
from prefsweep.report.comparable import comparable_sets, reason
from prefsweep.report.curves import draw_curves
from prefsweep.report.effects import draw_bars, draw_effects
from prefsweep.report.efficiency import draw_efficiency
from prefsweep.report.export import to_csv, to_latex
from prefsweep.report.figure import draw
from prefsweep.report.frame import Run, read_runs
from prefsweep.report.page import to_html
from prefsweep.report.published import read_published
from prefsweep.report.render import print_table, print_versus, to_markdown
from prefsweep.report.spending import draw_cost, draw_power
from prefsweep.report.table import Left, Table, read_all, table
from prefsweep.report.versus import Versus, to_csv as versus_to_csv, to_markdown as versus_to_markdown, versus

FORMATS: dict[str, Callable[[Table], str]] = {
    "md": to_markdown,
    "tex": to_latex,
    "csv": to_csv,
    "html": lambda made: to_html([made], "prefsweep", Path()),
}
BESIDE = ("md", "tex", "csv")  # what a sweep's folder gets; its page is report.html
PAGE = "report.html"


@dataclass(frozen=True)
class Layout:
    """What a table shows where it is not left to the runs: keys of rows, keys over columns, metrics."""

    rows: Sequence[str] | None = None
    columns: Sequence[str] = field(default_factory=tuple)
    metrics: Sequence[str] | None = None
    versus: Sequence[str] | None = None
    best_by: str | None = None
    note: str | None = None

    def table(self, runs: Sequence[Run], published: Sequence[dict[str, Any]], completions: Left) -> Table:
        return table(runs, self.metrics, self.rows, self.columns, published, completions)

    def without(self, absent: Sequence[str]) -> "Layout":
        kept = [metric for metric in self.metrics or () if metric not in absent]
        return replace(self, metrics=kept or None)


def report(folder: Path, console: Console | None = None) -> list[Path]:
    """Print the table of a sweep and its failures; write tables, figures and report.html into it.

    Runs that are not comparable have a table a set, table-2.md and so on. Returns what was written.
    """
    console = console or Console()
    runs = read_runs([folder])
    completions = read_all(runs)
    sets = comparable_sets(runs, completions)
    if len(sets) > 1:
        console.print(Text(f"the runs differ in {reason(sets, completions)}: a table each"), soft_wrap=True)
    tables, written, beside = [], [], []
    for number, members in enumerate(sets, 1):
        suffix = "" if number == 1 else f"-{number}"
        made, files = report_set(members, folder, suffix, completions, console)
        tables.append(made)
        written += files
        against, files = report_versus(made, folder, suffix, console)
        beside.append(against)
        written += files
    figures = [path for path in written if path.suffix == ".png"]
    written.append(folder / PAGE)
    write_text(
        folder / PAGE,
        to_html(tables, folder.resolve().name, folder, figures, manifest(folder).get("command", ""), beside),
    )
    print_failures(runs, console)
    for path in written:
        console.print(Text(str(path)), soft_wrap=True)
    return written


def report_set(
    runs: Sequence[Run], folder: Path, suffix: str, completions: Left, console: Console
) -> tuple[Table, list[Path]]:
    published, layout = read_published([folder]), read_layout(folder)
    present = {metric for run in runs for metric in run.metrics}
    if absent := [metric for metric in layout.metrics or () if metric not in present]:
        console.print(Text(f"report: no run has {', '.join(absent)}: not in the table"), soft_wrap=True)
        layout = layout.without(absent)
    try:
        made = layout.table(runs, published, completions)
    except UserError as error:  # a layout that does not fit costs the layout, not the table
        console.print(Text(f"report: {error}; the table is the default one"), soft_wrap=True)
        made = Layout().table(runs, published, completions)
    made = captioned(made, folder, layout, console)
    print_table(made, console)
    texts = {folder / f"table{suffix}.{kind}": FORMATS[kind](made) for kind in BESIDE}
    unchanged = all(is_text(path, text) for path, text in texts.items())
    for path, text in texts.items():
        write_text(path, text)
    return made, [*texts, *figures(runs, made, folder, suffix, keep=unchanged)]


def report_versus(made: Table, folder: Path, suffix: str, console: Console) -> tuple[Versus | None, list[Path]]:
    """Two rows against each other, where the experiment's `report:` names them."""
    names = read_layout(folder).versus
    if not names:
        return None, []
    try:
        against = versus(made, names)
    except UserError as error:
        console.print(Text(str(error)), soft_wrap=True)
        return None, []
    print_versus(against, console)
    texts = {"md": versus_to_markdown(against), "csv": versus_to_csv(against)}
    for kind, text in texts.items():
        write_text(folder / f"versus{suffix}.{kind}", text)
    return against, [folder / f"versus{suffix}.{kind}" for kind in texts]


def captioned(made: Table, folder: Path, layout: Layout, console: Console) -> Table:
    """The caption with the best configuration by a metric of validation, and a note, where the experiment has them."""
    said = [made.caption]
    if layout.best_by is not None:
        try:
            said.append(chosen(folder, layout.best_by))
        except UserError as error:  # costs the sentence alone
            console.print(Text(f"report: {error}; the caption names no best one"), soft_wrap=True)
    if layout.note is not None:
        said.append(layout.note)
    return replace(made, caption=" ".join(said))


def chosen(folder: Path, metric: str) -> str:
    first, *others = ranked(folder, metric)
    value = NOTHING if first.value is None else f"{first.value:.4f}"
    return f"The best of {len(others) + 1} by {metric} is {first.words} ({value})."


def figures(runs: Sequence[Run], made: Table, folder: Path, suffix: str, keep: bool) -> list[Path]:
    """Each only where its data is there. `keep`: those that lie there already show the same runs."""
    draw_each: dict[str, Callable[[Path], list[Path]]] = {
        "figure": lambda stem: draw(runs, stem),
        "curves": lambda stem: draw_curves(made, stem),
        "bars": lambda stem: draw_bars(made, stem),
        "cost": lambda stem: draw_cost(made, stem),
        "efficiency": lambda stem: draw_efficiency(made, stem),
        "power": lambda stem: draw_power(made, stem),
        "effects": lambda stem: draw_effects(made, stem),
    }
    wanted = (manifest(folder).get("report") or {}).get("figures")
    written = []
    for name, draw_one in draw_each.items():
        if wanted is not None and name not in wanted:
            continue
        there = [folder / f"{name}{suffix}.{kind}" for kind in ("png", "pdf")]
        written += there if keep and all(path.is_file() for path in there) else draw_one(folder / f"{name}{suffix}")
    return written


def manifest(folder: Path) -> dict[str, Any]:
    """What the sweep's driver wrote down of it; nothing for a folder that no sweep made."""
    path = folder / "sweep.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def read_layout(folder: Path) -> Layout:
    """What the experiment's `report:` says."""
    said = manifest(folder).get("report") or {}
    columns = tuple(said.get("columns") or ())
    rest = (said.get(name) for name in ("metrics", "versus", "best_by", "note"))
    return Layout(said.get("rows"), columns, *rest)


def table_of(
    folders: Sequence[Path], layout: Layout, kind: str | None, out: Path | None, console: Console
) -> list[Path]:
    """One table of several folders: on the terminal, in a format, or written into `out`."""
    runs = read_runs(folders)
    made = layout.table(runs, read_published(folders), read_all(runs))
    if out is None:
        if kind is None:
            print_table(made, console)
        else:
            console.file.write(FORMATS[kind](made))
        return []
    kinds = [kind] if kind else list(FORMATS)
    for name in kinds:
        write_text(out / f"table.{name}", FORMATS[name](made))
    return [out / f"table.{name}" for name in kinds]


def is_text(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def print_failures(runs: Sequence[Run], console: Console) -> None:
    """A line for each run that failed or diverged: its name and the last line of its error."""
    for run in runs:
        if run.status in ("failed", "diverged"):
            lines = (run.error or "").strip().splitlines() or ["no error was recorded"]
            console.print(Text.assemble((run.status, "bold red"), f" {run.name}: {lines[-1].strip()}"), soft_wrap=True)
