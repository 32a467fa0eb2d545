"""A `Table` as Markdown, as LaTeX in booktabs, as CSV with its trail, and on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from prefsweep.report.cells import Cell
from prefsweep.report.formatting import pipe_table
from prefsweep.report.metrics import metric
from prefsweep.report.statistics import standard_deviation
from prefsweep.report.table import Table

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
    **{"\ue000": r"\textbf{", "\ue001": "}", "\ue002": r"\textsuperscript{*}"},  # marks of cells, in no other text
}


def to_markdown(table: Table) -> str:
    """A pipe table, words to the left and numbers to the right, with its caption below."""
    rules = ["--:" if index in table.numbers else ":--" for index in range(len(table.header))]
    lines = pipe_table([table.header, rules, *table.lines("**{}**", r"{}\*")])
    return f"{lines}\n\n{table.caption}\n\n{table.provenance}\n"


def to_latex(table: Table) -> str:
    """A `table` environment with booktabs' rules; the document needs `\\usepackage{booktabs}` and nothing else."""
    rows = [list(map(latex, line)) for line in table.lines("\ue000{}\ue001", "{}\ue002")]
    alignment = "".join("r" if index in table.numbers else "l" for index in range(len(table.header)))
    frame = pd.DataFrame(rows, columns=list(map(latex, table.header)))
    text = frame.to_latex(index=False, column_format=alignment, caption=latex(table.caption))
    provenance = rf"{{\footnotesize {latex(table.provenance)}\par}}"
    return text.replace(r"\end{table}", f"{provenance}\n\\end{{table}}")


def latex(text: str) -> str:
    escaped = "".join(ESCAPES.get(character, character) for character in text)
    # In braces: a row that began with [ would be read as an argument of the line break before it.
    return f"{{{escaped}}}" if text.startswith("[") else escaped


def to_csv(table: Table) -> str:
    """A line a cell: raw values to the last bit, and the identity and folder of every run behind or left out of it."""
    lines = []
    for row in table.rows:
        for cell in row.cells or [Cell(metric(""), row.runs[:0], across=("",) * len(table.across))]:
            low, high = cell.interval or (None, None)
            values = {"tally": row.tally, "metric": cell.metric.name, "mean": cell.mean, "low_95": low, "high_95": high}
            values |= {
                "interval_over": cell.interval_over,
                "sd": standard_deviation(cell.values),
                "n": len(cell.values),
            }
            left_out = row.runs.loc[~row.runs.index.isin(cell.runs.index), "folder"]
            keys = dict(zip((*table.keys, *table.across), (*row.keys, *cell.across), strict=True))
            lines.append(keys | values | cell.trail | {"left_out": tuple(left_out)} | published_values(cell))
    return csv_text(lines)


def published_values(cell: Cell) -> dict[str, Any]:
    names = ("", "_low", "_high", "_n", "_source")
    value = cell.published
    values = (value.value, *(value.interval or (None, None)), value.n, value.source) if value else (None,) * len(names)
    return {f"published{name}": value for name, value in zip(names, values, strict=True)}


def csv_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, the values of a tuple with semicolons between them."""
    texts = [
        {name: ";".join(map(str, value)) if isinstance(value, tuple) else value for name, value in line.items()}
        for line in lines
    ]
    return pd.DataFrame(texts, dtype=object).to_csv(index=False, lineterminator="\n")


def print_table(table: Table, console: Console) -> None:
    print_lines(table.header, table.lines("**{}**", "{}*"), len(table.keys), console)
    console.print(Text(f"{table.caption} {table.provenance}", style="dim"))


def print_lines(header: Sequence[str], lines: Sequence[Sequence[str]], keys: int, console: Console) -> None:
    """Print in as many blocks as the console's width asks for, the first `keys` columns in each: nothing is cut."""
    frame = pd.DataFrame(lines, columns=list(header))
    frame = frame.set_index(list(header[:keys])).rename_axis(columns=None) if keys else frame
    text = frame.to_string(index=bool(keys), sparsify=False, line_width=max(console.width, 1))
    console.print(Text(text), soft_wrap=True)
