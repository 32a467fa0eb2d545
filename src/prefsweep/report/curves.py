"""Curves of training: loss, reward margin and score by step, from the history that each stage left."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefsweep.report.answers import stage_folder
from prefsweep.report.drawing import panels, style
from prefsweep.report.frame import Run
from prefsweep.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = {"loss": "loss", "margin": "reward margin", "score": "score"}  # of a history, each a panel
VALIDATION = "validation/"
MOST_RUNS = 60  # lines beyond that are a blot
NOTE = "Line: training, one run; dashed: validation. One colour a row of the table."
Series = dict[str, list[tuple[float, float]]]  # metric → (step, value)


def draw_curves(data: Table, path_stem: Path) -> list[Path]:
    """A panel a stage and metric; nothing where no stage left a curve."""
    found: dict[tuple[str, str], list[tuple[int, Series]]] = {}
    for place, run in shown_runs(data):
        for role in run.stages:
            series = read_series(run, role)
            for metric in SHOWN:
                if len(series.get(metric, ())) > 1 or len(series.get(VALIDATION + metric, ())) > 1:
                    found.setdefault((role, metric), []).append((place, series))
    if not found:
        return []
    places = [place for drawn in found.values() for place, _ in drawn]

    def draw(axes: "Axes", key: tuple[str, str]) -> None:
        draw_panel(axes, *key, found[key])

    return panels(data, path_stem, sorted(found), places, draw, NOTE)


def shown_runs(data: Table) -> list[tuple[int, Run]]:
    """Seeds in turn, so that every row shows before any shows twice."""
    longest = max((len(row.runs) for row in data.rows), default=0)
    turns = [
        (place, row.runs[turn])
        for turn in range(longest)
        for place, row in enumerate(data.rows)
        if turn < len(row.runs)
    ]
    return turns[:MOST_RUNS]


def read_series(run: Run, role: str) -> Series:
    folder = stage_folder(run, role)
    path = folder / "history.jsonl" if folder else None
    found: Series = {}
    if path is not None and path.is_file():
        for row in map(json.loads, path.read_text().splitlines()):
            for name, value in row.items():
                if name.removeprefix(VALIDATION) in SHOWN and isinstance(value, int | float):
                    found.setdefault(name, []).append((row["step"], value))
    return found


def draw_panel(axes: "Axes", role: str, metric: str, drawn: Sequence[tuple[int, Series]]) -> None:
    for place, series in drawn:
        for name, dashes, width in ((metric, "-", 0.8), (VALIDATION + metric, "--", 1.3)):
            points = series.get(name, ())
            axes.plot(*zip(*points, strict=True), dashes, color=style(place)[0], linewidth=width) if points else None
    axes.set_title(f"{role}: {SHOWN[metric]}", loc="left")
    axes.set_xlabel("step")
