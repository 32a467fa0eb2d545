"""What the figures of a sweep share: their size and look, the colours and names of a table's rows, and their files."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefsweep.pipeline.files import atomic
from prefsweep.report.formatting import setting_text, value_text
from prefsweep.report.runs import NAMES
from prefsweep.report.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours without the yellow, which print loses. A row has a colour and a marker, so that neither alone
# must tell rows apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#555555"
WIDTH = 6.0  # inches: the text width of a page
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,  # text stays text in the PDF
    "text.parse_math": False,  # a $ in a name is a $
    "figure.constrained_layout.use": True,
}
DOT: dict[str, Any] = {"markersize": 5, "alpha": 0.75, "markeredgecolor": "white", "markeredgewidth": 0.5}
LABEL = 24  # characters of a row's label before it breaks, between its values only
NO_BREAK = "\N{NO-BREAK SPACE}"


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    from matplotlib.figure import Figure  # here, since a table needs no matplotlib, whose import takes longer

    return Figure(figsize=(width, height))


def panels_of(figure: "Figure", count: int, across: int) -> "list[Axes]":
    """Return `count` panels, at most `across` a line and the lines equally full."""
    down = -(-count // across)
    axes = list(figure.subplots(down, -(-count // down), squeeze=False).flat)
    for empty in axes[count:]:
        empty.set_axis_off()
    return axes[:count]


def colour(row: int) -> str:
    return COLOURS[row % len(COLOURS)]


def marker(row: int) -> str:
    return MARKERS[row % len(MARKERS)]


def draw_dots(axes: "Axes", row: int, x: Sequence[float], y: Sequence[float]) -> None:
    axes.plot(x, y, marker(row), color=colour(row), **DOT)


def label(table: Table, row: Row) -> str:
    """Return `dpo, gpt2, dpo.beta 0.1`, broken where it is long, without what means nothing to the row."""
    pairs = [(key, value) for key, value in zip(table.keys, row.keys, strict=True) if value is not None]
    words = [value_text(value) if key in NAMES else setting_text(key, value) for key, value in pairs]
    unbroken = ", ".join(word.replace(" ", NO_BREAK) for word in words)
    lines = textwrap.wrap(unbroken, LABEL, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(NO_BREAK, " ") or "all runs"


def save(figure: "Figure", note: str, paths: Sequence[Path]) -> None:
    """Write the figure, over a line that says what its marks mean; equal runs give equal bytes."""
    figure.supxlabel(note, fontsize=6.5, color=GREY)
    for path in paths:
        with atomic(path) as temporary:
            dateless = {"CreationDate": None} if path.suffix == ".pdf" else None
            figure.savefig(temporary, format=path.suffix[1:], dpi=300, metadata=dateless)
