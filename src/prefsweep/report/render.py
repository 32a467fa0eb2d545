"""A `Table` as markdown, as CSV and on a terminal."""

import csv
import io
import textwrap
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from prefsweep.report.table import Cell, Row, Table

BETWEEN = ";"  # between the values, seeds and folders of one CSV cell
GAP = 2  # characters that rich's box adds to a column


def to_markdown(table: Table) -> str:
    """A pipe table, words to the left and numbers to the right, with its caption below."""
    rules = [":--"] * len(table.keys) + ["--:"] * len(table.metrics) + [":--"]
    lines = [table.header, rules, *table.texts()]
    body = "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines)
    return f"{body}\n\n{table.caption}\n"


def to_csv(table: Table) -> str:
    """A line a cell: raw values to the last bit, and the folder of every run behind them or left out of them."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    cell_header = ("metric", "mean", "half_width_95", "sd", "n", "values", "seeds", "folders", "left_out")
    writer.writerow([*table.keys, "runs", *cell_header])
    for row in table.rows:
        keys = ["" if key is None else key for key in row.keys]
        nothing = [("", Cell((), ()))]  # a row without a metric still shows its failed runs
        for metric, cell in list(zip(table.metrics, row.cells, strict=True)) or nothing:
            writer.writerow([*keys, row.tally, metric, *cell_line(row, cell)])
    return file.getvalue()


def cell_line(row: Row, cell: Cell) -> list[str | int]:
    numbers = [
        "" if number is None else repr(number) for number in (cell.mean, cell.half_width, cell.standard_deviation)
    ]
    behind = {run.identity for run in cell.runs}
    left_out = [run for run in row.runs if run.identity not in behind]
    return [
        *numbers,
        len(cell.values),
        BETWEEN.join(map(repr, cell.values)),
        BETWEEN.join(str(run.seed) for run in cell.runs),
        BETWEEN.join(str(run.folder) for run in cell.runs),
        BETWEEN.join(str(run.folder) for run in left_out),
    ]


def print_table(table: Table, console: Console) -> None:
    """In as many blocks as the console's width asks for, the row's keys repeated: a number is never cut or wrapped."""
    numbers = range(len(table.keys), len(table.keys) + len(table.metrics))
    columns = [list(column) for column in zip(*table.texts(), strict=True)] or [[] for _ in table.header]
    headings = [wrapped(head, column) for head, column in zip(table.header, columns, strict=True)]
    widths = [max(map(len, [*head.split("\n"), *column])) for head, column in zip(headings, columns, strict=True)]
    for block in blocks(widths, len(table.keys), console.width):
        grid = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
        for index in block:
            justify: Literal["right", "left"] = "right" if index in numbers else "left"
            grid.add_column(Text(headings[index]), justify=justify, no_wrap=index >= len(table.keys))
        for line in zip(*(columns[index] for index in block), strict=True):
            grid.add_row(*map(Text, line))
        console.print(grid)
    console.print(Text(table.caption, style="dim"))


def wrapped(head: str, column: list[str]) -> str:
    """A heading over several lines, no wider than its column where its words allow that."""
    width = max(map(len, [*column, *head.split()]))
    return "\n".join(textwrap.wrap(head, width, break_long_words=False, break_on_hyphens=False))


def blocks(widths: list[int], keys: int, room: int) -> list[list[int]]:
    """The columns of each block: the keys, then as many others as fit, one at least."""
    made: list[list[int]] = [list(range(keys))]
    for index in range(keys, len(widths)):
        wide = sum(widths[column] + GAP for column in [*made[-1], index])
        if wide > room and len(made[-1]) > keys:
            made.append(list(range(keys)))
        made[-1].append(index)
    return made
