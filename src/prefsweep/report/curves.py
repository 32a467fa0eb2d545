"""Curves of training: loss, reward margin and score, from the history that each stage left.

By epoch where a stage reads its data more than once, for that is when a validation turns; by step elsewhere.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefsweep.report.completions import stage_folder
from prefsweep.report.drawing import panels, style
from prefsweep.report.frame import Run
from prefsweep.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = {"loss": "loss", "margin": "reward margin", "score": "score"}  # of a history, each a panel
VALIDATION = "validation/"
MOST_RUNS = 60  # lines beyond that are a blot
NOTE = "Line: training, one run; dashed: validation. One colour a row of the table."


@dataclass(frozen=True)
class Series:
    """Points of each metric, by step and, where every one of them knows it, by epoch."""

    by_step: dict[str, list[tuple[float, float]]]
    by_epoch: dict[str, list[tuple[float, float]]] | None

    @property
    def epochs(self) -> float:
        points = [epoch for points in (self.by_epoch or {}).values() for epoch, _ in points]
        return max(points, default=0.0)


def draw_curves(data: Table, path_stem: Path) -> list[Path]:
    """A panel a stage and metric; nothing where no stage left a curve."""
    found: dict[tuple[str, str], list[tuple[int, Series]]] = {}
    for place, run in shown_runs(data):
        for role in run.stages:
            series = read_series(run, role)
            for metric in SHOWN:
                if any(len(series.by_step.get(name, ())) > 1 for name in (metric, VALIDATION + metric)):
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
    found: dict[str, dict[str, list[tuple[float, float]]]] = {"step": {}, "epoch": {}}
    if path is not None and path.is_file():
        for row in map(json.loads, path.read_text().splitlines()):
            for name, value in row.items():
                if name.removeprefix(VALIDATION) in SHOWN and isinstance(value, int | float):
                    for axis, series in found.items():
                        if axis in row:
                            series.setdefault(name, []).append((row[axis], value))
    by_step, by_epoch = found["step"], found["epoch"]
    known = {name: len(points) for name, points in by_step.items()}
    return Series(by_step, by_epoch if known == {name: len(points) for name, points in by_epoch.items()} else None)


def draw_panel(axes: "Axes", role: str, metric: str, drawn: Sequence[tuple[int, Series]]) -> None:
    repeated = all(series.by_epoch is not None for _, series in drawn) and any(series.epochs > 1 for _, series in drawn)
    for place, series in drawn:
        points = (series.by_epoch if repeated else series.by_step) or {}
        for name, dashes, width in ((metric, "-", 0.8), (VALIDATION + metric, "--", 1.3)):
            if found := points.get(name):
                axes.plot(*zip(*found, strict=True), dashes, color=style(place)[0], linewidth=width)
    axes.set_title(f"{role}: {SHOWN[metric]}", loc="left")
    axes.set_xlabel("epoch" if repeated else "step")
