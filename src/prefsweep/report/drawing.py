"""What all figures share: colours and shapes, the style, the labels of rows, and writing the files."""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefsweep.report.columns import key_heading, value_text
from prefsweep.report.frame import NAMED
from prefsweep.report.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours without the yellow, which print loses. A row has a colour and a marker of its own, so that
# neither alone must tell rows apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH = 6.0  # inches: the text width of a page
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "pdf.fonttype": 42,  # text stays text in the PDF
    "text.parse_math": False,  # a $ in a name is a $
    "figure.constrained_layout.use": True,
}
LABEL = 24  # characters of a row's label before it breaks, between its values only
NO_BREAK = "\N{NO-BREAK SPACE}"


def style(place: int) -> tuple[str, str]:
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def label(data: Table, row: Row) -> str:
    """`dpo, gpt2, dpo.beta 0.1`, broken where it is long; what means nothing to the row is left out."""
    pairs = [(key, value) for key, value in zip(data.keys, row.keys, strict=True) if value is not None]
    words = [value_text(value) if key in NAMED else f"{key_heading(key)} {value_text(value)}" for key, value in pairs]
    unbroken = ", ".join(word.replace(" ", NO_BREAK) for word in words)
    lines = textwrap.wrap(unbroken, LABEL, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(NO_BREAK, " ") or "all runs"


def picture(path_stem: Path, size: tuple[float, float], fill: "Callable[[Figure], None]") -> list[Path]:
    """A figure in the shared style, filled by `fill`, as `path_stem`.png and .pdf. Returns what was written."""
    # Imported here: a table needs no matplotlib, whose import takes longer than the table.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        fill(figure)
        return [write(figure, path_stem.with_name(f"{path_stem.name}.{kind}")) for kind in ("png", "pdf")]


def write(figure: "Figure", path: Path) -> Path:
    """Aside, then renamed. The same runs give the same bytes: no date goes in."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    kind = path.suffix[1:]
    figure.savefig(aside, format=kind, dpi=300, metadata={"CreationDate": None} if kind == "pdf" else None)
    aside.replace(path)
    return path
