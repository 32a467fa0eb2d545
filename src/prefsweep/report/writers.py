"""A `Table` as Markdown, as LaTeX in booktabs, as CSV with its trail, and on a terminal."""

from collections.abc import Iterable, Sequence
from statistics import stdev
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from prefsweep.report.table import Table

ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "²": r"\textsuperscript{2}",
        "|": r"\textbar{}",
        **{
            sign: rf"\ensuremath{{{code}}}"
            for sign, code in zip("−±×≤≥<>", ("-", r"\pm", r"\times", r"\leq", r"\geq", "<", ">"), strict=True)
        },
        **{character: "\\" + character for character in "&%$#_{}"},
        **{"\ue000": r"\textbf{", "\ue001": "}", "\ue002": r"\textsuperscript{*}"},  # marks of cells, in no other text
    }
)


def to_markdown(table: Table) -> str:
    return pipe_table(table.header, table.lines("**{}**", r"{}\*"), table.numbers, table.caption, table.provenance)


def pipe_table(header: Sequence[str], lines: Iterable[Sequence[str]], numbers: range, *notes: str) -> str:
    """Return a Markdown table, words to the left and `numbers` to the right, with notes below it."""
    rules = ["--:" if index in numbers else ":--" for index in range(len(header))]
    escaped = [[text.replace("|", r"\|") for text in line] for line in (header, rules, *lines)]
    return "\n\n".join(["\n".join(f"| {' | '.join(line)} |" for line in escaped), *notes]) + "\n"


def to_latex(table: Table) -> str:
    """Return a `table` environment with booktabs' rules; the document needs `\\usepackage{booktabs}` alone."""
    rows = [list(map(latex, line)) for line in table.lines("\ue000{}\ue001", "{}\ue002")]
    alignment = "".join("r" if index in table.numbers else "l" for index in range(len(table.header)))
    frame = pd.DataFrame(rows, columns=list(map(latex, table.header)))
    text = frame.to_latex(index=False, column_format=alignment, caption=latex(table.caption))
    provenance = rf"{{\footnotesize {latex(table.provenance)}\par}}"
    return text.replace(r"\end{table}", f"{provenance}\n\\end{{table}}")


def latex(text: str) -> str:
    escaped = text.translate(ESCAPES)
    # In braces: a row that began with [ would be read as an argument of the line break before it.
    return f"{{{escaped}}}" if text.startswith("[") else escaped


def to_csv(table: Table) -> str:
    """Return a line a cell: raw values to the last bit, and identity and folder of every run behind or left out of it.

    A row without cells, since none of its runs has a result, is a line too.
    """
    lines = []
    for row in table.rows:
        keys = dict(zip(table.keys, row.keys, strict=True)) | {"tally": row.tally}
        if not row.cells:
            lines.append(keys | {"n": 0, "left_out": tuple(row.runs["folder"])})
        for cell in row.cells:
            low, high = cell.interval or (None, None)
            line = keys | dict(zip(table.across, cell.across, strict=True))
            line |= {"metric": cell.metric.name, "mean": cell.mean, "low_95": low, "high_95": high}
            line |= {"interval_over": cell.over, "sd": stdev(cell.values) if len(cell.values) > 1 else None}
            line |= {"n": len(cell.values), **cell.trail}
            line["left_out"] = tuple(row.runs.loc[~row.runs.index.isin(cell.runs.index), "folder"])
            published = cell.published._asdict() if cell.published else {}
            lines.append(line | {f"published_{name}": value for name, value in published.items()})
    return csv_text(lines)


def csv_text(lines: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV, the values of a tuple with semicolons between them."""
    texts = [
        {name: ";".join(map(str, value)) if isinstance(value, tuple) else value for name, value in line.items()}
        for line in lines
    ]
    return pd.DataFrame(texts, dtype=object).to_csv(index=False, lineterminator="\n")


def print_table(table: Table, console: Console) -> None:
    note = f"{table.caption} {table.provenance}"
    print_lines(table.header, table.lines("**{}**", "{}*"), len(table.keys), note, console)


def print_lines(header: Sequence[str], lines: Sequence[Sequence[str]], keys: int, note: str, console: Console) -> None:
    """Print in as many blocks as the console's width asks for, the first `keys` columns in each: nothing is cut."""
    if lines:
        frame = pd.DataFrame(lines, columns=list(header))
        frame = frame.set_index(list(header[:keys])).rename_axis(columns=None) if keys else frame
        console.out(frame.to_string(index=bool(keys), sparsify=False, line_width=max(console.width, 1)))
    console.print(Text(note, style="dim"))
