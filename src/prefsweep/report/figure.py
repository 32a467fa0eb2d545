"""The picture of a sweep: every run a dot beside its row's mean and interval, and what the score cost in KL."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefsweep.report.caption import sampled
from prefsweep.report.columns import heading, key_heading, value_text
from prefsweep.report.frame import NAMED, Run
from prefsweep.report.table import Row, Table, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours without the yellow, which print loses. A row has a colour and a marker of its own, so that
# neither alone must tell rows apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH = 6.0  # inches: the text width of a page
TALLEST = 40.0  # inches: past it rows move together, or the PNG of a thousand rows would not fit in memory
NOTE = "Dot: one run. Bar and line below: mean and its 95% interval, as in the table. One colour and shape a row."
LABEL = 24  # characters of a row's label before it breaks, between its values only
NO_BREAK = "\N{NO-BREAK SPACE}"
DIVERGENCE = "kl/base"
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
DOT: dict[str, Any] = {"markersize": 5, "alpha": 0.75, "markeredgecolor": "white", "markeredgewidth": 0.5}
ABSENT: dict[str, Any] = {"color": "#777777", "style": "italic", "fontsize": 7}


def draw(runs: Sequence[Run], path_stem: Path, metric: str = "judge/mean") -> list[Path]:
    """Write `path_stem`.png and .pdf; nothing where no run has the metric. Returns what was written."""
    counted = [run for run in runs if run.has_result]
    if not any(metric in run.metrics for run in counted):
        return []
    beside = metric != DIVERGENCE and any(DIVERGENCE in run.metrics and metric in run.metrics for run in counted)
    # Imported here: a table needs no matplotlib, whose import takes longer than the table.
    import matplotlib
    from matplotlib.figure import Figure

    data = table(runs, [metric])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height(data, beside)))
        panels = figure.subplots(1, 2 if beside else 1, squeeze=False, width_ratios=[1.1, 1] if beside else [1])[0]
        draw_rows(panels[0], data, metric)
        if beside:
            draw_tradeoff(panels[1], data, metric)
        figure.supxlabel(NOTE, fontsize=6.5, color="#555555")
        return [write(figure, path_stem.with_name(f"{path_stem.name}.{kind}")) for kind in ("png", "pdf")]


def height(data: Table, beside: bool) -> float:
    lines = sum(max(2, len(label(data, row).split("\n"))) for row in data.rows)
    return min(max(1.0 + 0.17 * lines, 2.7 if beside else 1.5), TALLEST)


def draw_rows(axes: "Axes", data: Table, metric: str) -> None:
    """A line a row, the first on top as in the table."""
    for place, row in enumerate(data.rows):
        draw_row(axes, place, row)
    axes.set_yticks(range(len(data.rows)), [label(data, row) for row in data.rows])
    axes.set_ylim(len(data.rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    prompts = sampled([run for row in data.rows for run in row.runs if run.has_result])
    axes.set_xlabel(heading(metric) + (f" ({prompts})" if prompts else ""))
    axes.set_title("Every run", loc="left")
    axes.locator_params(axis="x", nbins=5)


def draw_row(axes: "Axes", place: int, row: Row) -> None:
    """The runs as dots; under them, never on them, their mean as a bar and its interval as a line. One run is a dot."""
    colour, marker = style(place)
    cell = row.cells[0]
    if cell.mean is None:
        beside_axis = axes.get_yaxis_transform()  # x as a share of the panel, y in rows
        axes.text(0.02, place, f"no result: {row.tally}", transform=beside_axis, va="center", **ABSENT)
        return
    above, below = (place - 0.12, place + 0.16) if cell.interval is not None else (place, place)
    axes.plot(cell.values, [above] * len(cell.values), marker, color=colour, **DOT)
    if cell.interval is not None:
        axes.vlines(cell.mean, below - 0.13, below + 0.13, color=colour, linewidth=1.8)
        axes.hlines(below, *cell.interval, color=colour, linewidth=1)


def draw_tradeoff(axes: "Axes", data: Table, metric: str) -> None:
    """How far each run went from the base, and what it got for it. Colours and shapes are those of the rows."""
    for place, row in enumerate(data.rows):
        colour, marker = style(place)
        both = [run.metrics for run in row.cells[0].runs if DIVERGENCE in run.metrics]
        axes.plot([run[DIVERGENCE] for run in both], [run[metric] for run in both], marker, color=colour, **DOT)
    axes.set_xlabel(heading(DIVERGENCE))
    axes.set_ylabel(heading(metric))
    axes.set_title(f"Against {heading(DIVERGENCE)}", loc="left")
    axes.margins(0.08)


def style(place: int) -> tuple[str, str]:
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def label(data: Table, row: Row) -> str:
    """`dpo, gpt2, dpo.beta 0.1`, broken where it is long; what means nothing to the row is left out."""
    pairs = [(key, value) for key, value in zip(data.keys, row.keys, strict=True) if value is not None]
    words = [value_text(value) if key in NAMED else f"{key_heading(key)} {value_text(value)}" for key, value in pairs]
    unbroken = ", ".join(word.replace(" ", NO_BREAK) for word in words)
    lines = textwrap.wrap(unbroken, LABEL, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(NO_BREAK, " ") or "all runs"


def write(figure: "Figure", path: Path) -> Path:
    """Aside, then renamed. The same runs give the same bytes: no date goes in."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    kind = path.suffix[1:]
    figure.savefig(aside, format=kind, dpi=300, metadata={"CreationDate": None} if kind == "pdf" else None)
    aside.replace(path)
    return path
