"""A `Table` as CSV, raw and with its trail, and as LaTeX in booktabs."""

import csv
import io
from collections.abc import Sequence

from prefsweep.report.cell import Cell
from prefsweep.report.frame import Run
from prefsweep.report.table import Column, Row, Table

BETWEEN = ";"  # between the values, seeds, identities and folders of one CSV cell
CELL = ("metric", "mean", "low_95", "high_95", "interval_over", "sd", "n", "values", "seeds", "runs", "folders")
PUBLISHED = ("published", "published_low", "published_high", "published_n", "published_source")
ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "–": "--",
    "×": r"\ensuremath{\times}",
    "²": r"\textsuperscript{2}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\textbar{}",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def to_csv(table: Table) -> str:
    """A line a cell: raw values to the last bit, and the identity and folder of every run behind or left out of it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*table.keys, *table.across, "tally", *CELL, "left_out", *PUBLISHED])
    for row in table.rows:
        keys = ["" if key is None else key for key in row.keys]
        nothing = [(Column("", ("",) * len(table.across)), Cell("", (), ()))]  # without a metric, its failed runs
        for column, cell in list(zip(table.columns, row.cells, strict=True)) or nothing:
            writer.writerow([*keys, *column.across, row.tally, column.metric, *cell_line(row, cell)])
    return file.getvalue()


def cell_line(row: Row, cell: Cell) -> list[str | int]:
    low, high = cell.interval or (None, None)
    behind = {run.identity for run in cell.runs}
    return [
        *map(raw, (cell.mean, low, high)),
        cell.over,
        raw(cell.standard_deviation),
        len(cell.values),
        *trail(cell.values, cell.runs),
        folders([run for run in row.runs if run.identity not in behind]),
        *published_line(cell),
    ]


def trail(values: Sequence[float], runs: Sequence[Run]) -> list[str]:
    """The values of single runs, their seeds, identities and folders: each a CSV cell."""
    seeds, identities = (str(run.seed) for run in runs), (run.identity for run in runs)
    return [BETWEEN.join(map(repr, values)), BETWEEN.join(seeds), BETWEEN.join(identities), folders(runs)]


def published_line(cell: Cell) -> list[str | int]:
    found = cell.published
    if found is None:
        return [""] * len(PUBLISHED)
    low, high = found.interval or (None, None)
    return [*map(raw, (found.value, low, high)), found.n or "", found.source]


def raw(value: float | None) -> str:
    return "" if value is None else repr(value)


def folders(runs: Sequence[Run]) -> str:
    return BETWEEN.join(str(run.folder) for run in runs)


def to_latex(table: Table) -> str:
    """A `table` environment with booktabs' rules; the document needs `\\usepackage{booktabs}` and nothing else."""
    numbers = len(table.header) - len(table.keys) - 1
    rows = [[latex_cell(cell.text, cell.is_best, cell.is_worse) for cell in line] for line in table.shown()]
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \begin{{tabular}}{{{'l' * len(table.keys)}{'r' * numbers}l}}",
        r"    \toprule",
        f"    {' & '.join(map(latex, table.header))} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(row)} \\\\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        rf"  \caption{{{latex(table.caption)}}}",
        rf"  {{\footnotesize {latex(table.provenance)}\par}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex_cell(text: str, is_best: bool, is_worse: bool) -> str:
    # In braces: a row that began with [ would be read as an argument of the line break before it.
    inner = "{" + latex(text) + "}" if text.startswith("[") else latex(text)
    return rf"\textbf{{{inner}}}" if is_best else inner + (r"\textsuperscript{*}" if is_worse else "")


def latex(text: str) -> str:
    return "".join(ESCAPES.get(character, character) for character in text)
