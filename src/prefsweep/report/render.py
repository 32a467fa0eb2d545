"""A `Table` as markdown and on a terminal."""

import textwrap
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from prefsweep.report.columns import pipe_table
from prefsweep.report.table import Table
from prefsweep.report.versus import Versus

GAP = 2  # characters that rich's box adds to a column


def to_markdown(table: Table) -> str:
    """A pipe table, words to the left and numbers to the right, with its caption below."""
    numbers = len(table.header) - len(table.keys) - 1
    rules = [":--"] * len(table.keys) + ["--:"] * numbers + [":--"]
    rows = [[cell.marked(lambda text: f"**{text}**", r"\*") for cell in line] for line in table.shown()]
    return f"{pipe_table([table.header, rules, *rows])}\n\n{table.caption}\n\n{table.provenance}\n"


def print_table(table: Table, console: Console) -> None:
    """In as many blocks as the console's width asks for, the row's keys repeated: a number is never cut or wrapped."""
    rows = [[Text(cell.marked(str, "*"), "bold" if cell.is_best else "") for cell in line] for line in table.shown()]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in table.header]
    plain = [[text.plain for text in column] for column in columns]
    headings = [wrapped(head, column) for head, column in zip(table.header, plain, strict=True)]
    widths = [max(map(len, [*head.split("\n"), *column])) for head, column in zip(headings, plain, strict=True)]
    numbers = range(len(table.keys), len(table.header) - 1)
    for block in blocks(widths, len(table.keys), console.width):
        grid = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
        for index in block:
            justify: Literal["right", "left"] = "right" if index in numbers else "left"
            grid.add_column(Text(headings[index]), justify=justify, no_wrap=index >= len(table.keys))
        for line in zip(*(columns[index] for index in block), strict=True):
            grid.add_row(*line)
        console.print(grid)
    console.print(Text(f"{table.caption} {table.provenance}", style="dim"))


def print_versus(made: Versus, console: Console) -> None:
    grid = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
    for place, head in enumerate(made.header):
        grid.add_column(Text(head), justify="right" if 0 < place < 4 else "left")
    for line in made.texts():
        grid.add_row(*map(Text, line))
    console.print(grid)
    console.print(Text(made.note, style="dim"))


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
