"""Quality by row with intervals, and by hyperparameter."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefsweep.report.columns import decimals_for, direction, heading, key_heading, number, value_text
from prefsweep.report.drawing import WIDTH, label, picture, style
from prefsweep.report.frame import NAMED
from prefsweep.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = {
    *("judge/hmr", "judge/hpr", "judge/cas", "judge/win_rate"),
    *("judge/mean", "judge/mean_harmful", "judge/mean_helpful"),
}
QUALITY = "judge/mean"
MOST_ROWS = 12


def draw_bars(data: Table, path_stem: Path) -> list[Path]:
    """The judge's rates and mean score with their intervals; nothing past a dozen rows, where nobody reads bars."""
    metrics = [place for place, column in enumerate(data.columns) if column.metric in BARS and not data.across]
    if not metrics or not 2 <= len(data.rows) <= MOST_ROWS:
        return []

    down = -(-len(metrics) // 4)
    across = -(-len(metrics) // down)

    def fill(figure: "Figure") -> None:
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in panels[len(metrics) :]:
            axes.set_axis_off()
        for axes, place in zip(panels, metrics, strict=False):
            for at, row in enumerate(data.rows):
                cell = row.cells[place]
                if cell.mean is None:
                    continue
                axes.bar(at, cell.mean, color=style(at)[0], width=0.7)
                if cell.interval is not None:
                    axes.vlines(at, *cell.interval, color="black", linewidth=1)
            names = [label(data, row) for row in data.rows]
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
            axes.set_title(data.columns[place].heading.replace(", ", ",\n"), loc="left", fontsize=8)
            axes.grid(False, axis="x")
        figure.supxlabel("Bar: mean; line: its 95% interval, as in the table.", fontsize=6.5, color="#555555")

    return picture(path_stem, (WIDTH, 2.6 * down), fill)


def draw_effects(data: Table, path_stem: Path) -> list[Path]:
    """One numeric key that varies: a line with intervals. Two: a heat map. Within one method; else nothing."""
    place = next((at for at, column in enumerate(data.columns) if column.metric == QUALITY), None)
    numeric = [key for key in data.keys if key not in NAMED]
    values = [[row.keys[data.keys.index(key)] for key in numeric] for row in data.rows]
    if place is None or data.across or len(numeric) not in (1, 2) or len(numeric) < len(data.keys):
        return []
    if not all(isinstance(value, int | float) for line in values for value in line):
        return []

    def fill(figure: "Figure") -> None:
        draw = draw_line if len(numeric) == 1 else draw_heat
        draw(figure.subplots(), data, place, [key_heading(key) for key in numeric], values)

    return picture(path_stem, (WIDTH * 0.7, 2.8), fill)


def draw_line(axes: "Axes", data: Table, place: int, names: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
    for (at,), row in zip(values, data.rows, strict=True):
        cell = row.cells[place]
        axes.plot([at] * len(cell.values), cell.values, "o", color="#0072B2", markersize=4, alpha=0.6)
        if cell.interval is not None:
            axes.vlines(at, *cell.interval, color="black", linewidth=1)
    known = sorted((at, row.cells[place].mean or 0.0) for (at,), row in zip(values, data.rows, strict=True))
    axes.plot(*zip(*known, strict=True), color="black", linewidth=0.8)
    axes.set_xlabel(names[0])
    axes.set_ylabel(heading(QUALITY))
    if min(at for at, _ in known) > 0 and known[-1][0] / known[0][0] >= 10:
        axes.set_xscale("log")
        axes.set_xticks([at for at, _ in known], [value_text(at) for at, _ in known])
        axes.minorticks_off()


def draw_heat(axes: "Axes", data: Table, place: int, names: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
    across, down = (sorted({line[at] for line in values}) for at in (0, 1))
    means = {tuple(line): row.cells[place].mean for line, row in zip(values, data.rows, strict=True)}
    grid = [[means.get((x, y)) for x in across] for y in down]
    shown = [[float("nan") if mean is None else mean for mean in line] for line in grid]
    sign = direction(QUALITY)
    image = axes.imshow(shown, cmap="cividis" if sign >= 0 else "cividis_r", aspect="auto", origin="lower")
    decimals = decimals_for([mean for line in grid for mean in line])
    middle = sum(image.get_clim()) / 2
    for y, line in enumerate(grid):
        for x, mean in enumerate(line):
            text = "–" if mean is None else number(mean, decimals)
            dark = mean is not None and mean < middle
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_xticks(range(len(across)), list(map(value_text, across)))
    axes.set_yticks(range(len(down)), list(map(value_text, down)))
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.set_title(heading(QUALITY), loc="left")
    axes.grid(False)
