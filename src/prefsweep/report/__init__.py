"""run.json files → tables and figures. Reads records only: it imports no torch and knows no training."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from prefsweep.pipeline.files import write_text
from prefsweep.report.figure import draw
from prefsweep.report.frame import Run, read_runs
from prefsweep.report.render import print_table, to_csv, to_markdown
from prefsweep.report.table import table


def report(folder: Path, console: Console | None = None) -> list[Path]:
    """Print the table of a sweep and its failures; write table.md, table.csv, figure.png and figure.pdf into it.

    Returns what was written. Where no run has a judge's score there is no figure.
    """
    console = console or Console()
    runs = read_runs([folder])
    made = table(runs)
    print_table(made, console)
    print_failures(runs, console)
    texts = {folder / "table.md": to_markdown(made), folder / "table.csv": to_csv(made)}
    figures = [folder / "figure.png", folder / "figure.pdf"]
    drawn = all(path.is_file() for path in figures) and all(is_text(path, text) for path, text in texts.items())
    for path, text in texts.items():
        write_text(path, text)
    written = [*texts, *(figures if drawn else draw(runs, folder / "figure"))]
    for path in written:
        console.print(Text(str(path)), soft_wrap=True)
    return written


def is_text(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def print_failures(runs: list[Run], console: Console) -> None:
    """A line for each run that failed or diverged: its name and the last line of its error."""
    for run in runs:
        if run.status in ("failed", "diverged"):
            lines = (run.error or "").strip().splitlines() or ["no error was recorded"]
            console.print(Text.assemble((run.status, "bold red"), f" {run.name}: {lines[-1].strip()}"), soft_wrap=True)
