"""What all figures share: colours and shapes, the style, the labels of rows, and writing the files."""

import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefsweep.report.columns import key_heading, value_text
from prefsweep.report.frame import NAMED
from prefsweep.report.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
MOST_NAMED = 10  # rows in a legend over panels
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


def panels(
    data: Table,
    path_stem: Path,
    keys: Sequence[Any],
    places: Iterable[int],
    draw_panel: "Callable[[Axes, Any], None]",
    note: str,
    marked: bool = False,
) -> list[Path]:
    """Two a line, a panel a key; above them the colours of the rows at `places`, where `marked` their markers too."""

    def fill(figure: "Figure") -> None:
        axes = figure.subplots((len(keys) + 1) // 2, min(2, len(keys)), squeeze=False).flatten()
        for one, key in zip(axes, keys, strict=False):
            draw_panel(one, key)
        for empty in axes[len(keys) :]:
            empty.set_axis_off()
        shown = sorted(set(places))[:MOST_NAMED]
        named = [
            axes[0].plot([], [], style(p)[1] if marked else "-", color=style(p)[0], label=label(data, data.rows[p]))[0]
            for p in shown
        ]
        figure.legend(handles=named, loc="outside upper center", ncols=min(4, len(named)), frameon=False, fontsize=7)
        figure.supxlabel(note, fontsize=6.5, color="#555555")

    return picture(path_stem, (WIDTH, 0.9 + 1.9 * ((len(keys) + 1) // 2)), fill)


def from_zero(axes: "Axes") -> None:
    """The x of a price, with room for a marker at either end."""
    dearest = axes.dataLim.x1 or 1
    axes.set_xlim(-0.03 * dearest, 1.04 * dearest)


def write(figure: "Figure", path: Path) -> Path:
    """Aside, then renamed. The same runs give the same bytes: no date goes in."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    kind = path.suffix[1:]
    figure.savefig(aside, format=kind, dpi=300, metadata={"CreationDate": None} if kind == "pdf" else None)
    aside.replace(path)
    return path
