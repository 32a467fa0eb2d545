"""What it took: quality against the cost of each run, and the power that its stages drew."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefsweep.pipeline.cost import TRACE
from prefsweep.report.columns import heading
from prefsweep.report.completions import stage_folder
from prefsweep.report.curves import shown_runs
from prefsweep.report.drawing import from_zero, panels, style
from prefsweep.report.frame import Run
from prefsweep.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUALITY = "judge/mean"
PRICES = ("cost/labels", "cost/flops", "cost/seconds", "cost/gpu_hours")
NOTE = "Dot: one run. What its method took from the base on, whoever paid for shared stages; judging left out."
POWER_NOTE = "Line: one run, the GPUs of its process together. One colour a row of the table."
MINUTE = 60


def draw_cost(data: Table, path_stem: Path) -> list[Path]:
    """Quality against each price that runs differ in."""
    runs = [
        (place, run.metrics)
        for place, row in enumerate(data.rows)
        for run in row.runs
        if run.has_result and QUALITY in run.metrics
    ]
    prices = [price for price in PRICES if len({found[price] for _, found in runs if price in found}) > 1]
    if not prices:
        return []

    def draw(axes: "Axes", price: str) -> None:
        scale = MINUTE if price == "cost/seconds" else 1
        for place, found in runs:
            if price in found:
                colour, marker = style(place)
                axes.plot(found[price] / scale, found[QUALITY], marker, color=colour, markersize=4)
        from_zero(axes)
        axes.set_xlabel("minutes" if scale == MINUTE else heading(price))
        axes.set_ylabel(heading(QUALITY))

    return panels(data, path_stem, prices, (place for place, _ in runs), draw, NOTE, marked=True)


def draw_power(data: Table, path_stem: Path) -> list[Path]:
    """A panel a stage; nothing where no GPU told its power."""
    found: dict[str, list[tuple[int, list[tuple[float, float]]]]] = {}
    for place, run in shown_runs(data):
        for role in run.stages:
            drawn = [(row["seconds"] / MINUTE, row["watts"]) for row in trace(run, role) if "watts" in row]
            if len(drawn) > 1:
                found.setdefault(role, []).append((place, drawn))
    if not found:
        return []

    def draw(axes: "Axes", role: str) -> None:
        for place, drawn in found[role]:
            axes.plot(*zip(*drawn, strict=True), color=style(place)[0], linewidth=0.8)
        axes.set_ylim(bottom=0)
        from_zero(axes)
        axes.set_title(role, loc="left")
        axes.set_xlabel("minutes")
        axes.set_ylabel("GPU power in watts")

    places = (place for lines in found.values() for place, _ in lines)
    return panels(data, path_stem, sorted(found), places, draw, POWER_NOTE)


def trace(run: Run, role: str) -> Iterator[dict[str, Any]]:
    """What a stage left of its time and power, row by row."""
    folder = stage_folder(run, role)
    path = folder / TRACE if folder else None
    if path is not None and path.is_file():
        yield from map(json.loads, path.read_text().splitlines())
