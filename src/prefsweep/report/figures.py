"""The figures of a sweep, each as PNG and PDF where its data is there, in the colours of the table's rows."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from prefsweep.report import curves
from prefsweep.report.captions import prompts_text
from prefsweep.report.cells import Interval
from prefsweep.report.course import course_points
from prefsweep.report.formatting import key_heading, setting_text, value_text
from prefsweep.report.metrics import HIGHER, metric
from prefsweep.report.runs import NAMES, Run, input_identity, is_number, records, stage_file
from prefsweep.report.style import GREY, STYLE, WIDTH, colour, draw_dots, label, new_figure, panels_of, save
from prefsweep.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("png", "pdf")
TALLEST = 40.0  # inches: past it the PNG of a thousand rows would not fit in memory
MOST_BARS = 12  # rows: past a dozen nobody reads bars
NOTES = {  # the line below each figure
    "figure": "Dot: one run. Bar and line below: mean and 95% interval, as in the table. One colour and shape a row.",
    "bars": "Bar: mean; line: its 95% interval, as in the table.",
    "effects": "Dot: one run; vertical line: the 95% interval of its mean.",
    "curves": "Line: training, one run; dashed: validation. One colour a row of the table.",
    "cost": "Dot: one run. What its method took from the base on, whoever paid for shared stages; judging left out.",
    "efficiency": "Line: one run, a point a validation; the stages before it are in what it took. One colour a row.",
    "power": "Line: one run, the GPUs of its process together. One colour a row of the table.",
    "course": "Point: a state that was kept, mean over seeds; bar: its 95% interval. Step 0: the start.",
}


def draw_figures(
    table: Table, scores: Table | None, folder: Path, suffix: str, keep: bool, course: Table | None = None
) -> list[Path]:
    """Draw each figure whose data is there into `folder`, and return the files. `scores` is the table of judge scores.

    `course` is the table of states. `keep`: figures that lie there already show the same runs.
    """
    import matplotlib as mpl

    figures: dict[str, Callable[[], Figure | None]] = {
        "figure": lambda: draw_runs(scores) if scores else None,
        "bars": lambda: draw_bars(table),
        "effects": lambda: draw_effects(scores) if scores else None,
        "curves": lambda: curves.draw_panels(table, curves.points_of(table, curves.training)),
        "cost": lambda: curves.draw_panels(
            table, curves.points_of(table, curves.cost), metric(curves.QUALITY).heading, is_marked=True
        ),
        "efficiency": lambda: curves.draw_panels(table, curves.points_of(table, curves.efficiency), is_marked=True),
        "power": lambda: curves.draw_panels(table, curves.points_of(table, curves.power), curves.POWER),
        "course": lambda: draw_course(table, course) if course else None,
    }
    written = []
    for name, draw in figures.items():
        paths = [folder / f"{name}{suffix}.{kind}" for kind in KINDS]
        with mpl.rc_context(STYLE):
            if not (keep and all(path.is_file() for path in paths)):
                figure = draw()
                if figure is None:
                    continue
                save(figure, NOTES[name], paths)
        written += paths
    return written


def draw_runs(scores: Table) -> "Figure":
    """Draw every run beside its row's mean and interval, and the score against KL where all share one base."""
    runs = [run for row in scores.rows for run in records(row.cells[0].runs)]
    bases = {input_identity(run, "base") for run in runs} - {None}
    has_kl = len(bases) <= 1 and any(is_number(run.get("kl/base")) for run in runs)
    lines = sum(max(2, len(label(scores, row).split("\n"))) for row in scores.rows)
    height = min(max(1.0 + 0.17 * lines, 2.7 if has_kl else 1.5), TALLEST)
    figure = new_figure(height)
    panels = figure.subplots(1, 1 + has_kl, squeeze=False, width_ratios=[1.1, 1][: 1 + has_kl])[0]
    draw_rows(panels[0], scores)
    if has_kl:
        draw_against_kl(panels[1], scores)
    return figure


def draw_rows(axes: "Axes", scores: Table) -> None:
    """Draw a line a row, the first on top as in the table: dots, and below them their mean and interval."""
    for index, row in enumerate(scores.rows):
        cell = row.cells[0]
        if cell.mean is None:
            left, text = axes.get_yaxis_transform(), f"no result: {row.tally}"
            axes.text(0.02, index, text, transform=left, va="center", color=GREY, style="italic", fontsize=7)
            continue
        above, below = (index, index) if cell.interval is None else (index - 0.12, index + 0.16)
        draw_dots(axes, index, cell.values, [above] * len(cell.values))
        if cell.interval is not None:
            axes.vlines(cell.mean, below - 0.13, below + 0.13, color=colour(index), linewidth=1.8)
            axes.hlines(below, *cell.interval, color=colour(index), linewidth=1)
    axes.set_yticks(range(len(scores.rows)), [label(scores, row) for row in scores.rows])
    axes.set_ylim(len(scores.rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    prompts = prompts_text(pd.concat([row.runs for row in scores.rows]))
    axes.set_xlabel(metric(curves.QUALITY).heading + (f" ({prompts})" if prompts else ""))
    axes.set_title("Every run", loc="left")
    axes.locator_params(axis="x", nbins=5)


def draw_against_kl(axes: "Axes", scores: Table) -> None:
    """Draw how far each run went, what it got, and the optimal reward at the same KL."""
    rows = [records(row.cells[0].runs) for row in scores.rows]
    runs = [run for row in rows for run in row]
    divergence, start = kl_axis(runs)
    draw_frontiers(axes, runs, start)
    for index, row in enumerate(rows):
        points = [(kl, run[curves.QUALITY]) for run in row if (kl := kl_of(run, divergence, start)) is not None]
        draw_dots(axes, index, [kl for kl, _ in points], [score for _, score in points])
    heading = metric(divergence).heading
    axes.set(xlabel=heading, ylabel=metric(curves.QUALITY).heading)
    axes.set_title(f"Against {heading}", loc="left")
    axes.margins(0.08)


def kl_axis(runs: Sequence[Run]) -> tuple[str, str | None]:
    """Return the metric of the axis, and the start that its KL is to.

    It is KL to the base, which all runs share; where the frontier is a start's, KL to the start that most of them have.
    """
    with_frontier = [run for run in runs if run.get(f"stages.{run['target']}.frontier")]
    of_start = [run for run in with_frontier if run[f"stages.{run['target']}.frontier_of"] != "base"]
    starts = Counter(input_identity(run, "start") for run in of_start)
    return ("kl/start", starts.most_common(1)[0][0]) if starts else ("kl/base", None)


def kl_of(run: Run, divergence: str, start: str | None) -> float | None:
    """Return the run's KL, 0 of the start itself, and None of a run with another start."""
    if start is None or input_identity(run, "start") == start:
        return run[divergence] if is_number(run.get(divergence)) else None
    return 0.0 if input_identity(run, "result") == start else None


def read_frontiers(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the frontiers of every reference and reward that these runs have, each once."""
    # The one input of a target that has such a file: no code outside a stage names it.
    paths = {stage_file(run, role, "curves.json") for run in runs for role in run["inputs"].values()}
    read = [json.loads(path.read_text())["curves"].items() for path in sorted(filter(None, paths))]
    curves = [{"name": name, **curve} for items in read for name, curve in items]
    return [curve for index, curve in enumerate(curves) if curve not in curves[:index]]


def draw_frontiers(axes: "Axes", runs: Sequence[Run], start: str | None) -> None:
    """Draw the optimal reward at each KL behind the runs, and the best of n. One line of each kind is named."""
    runs = [run for run in runs if start is None or input_identity(run, "start") == start]
    lines = {"judge": ("-", "optimal at the same KL"), "reward": ("--", "optimal by the reward, judged")}
    for curve in read_frontiers(runs):
        line, name = lines[curve["name"]]
        points = pd.DataFrame(curve["optimal"])
        axes.plot(points["kl"], points["value"], line, color=GREY, linewidth=1.1, zorder=1, label=name)
        if curve["name"] == "judge":
            band = points["kl"], points["low"], points["high"]
            axes.fill_between(*band, color=GREY, alpha=0.13, linewidth=0, zorder=0)
            best = pd.DataFrame(curve["best_of"]).query("kl <= @points.kl.max()")
            style: dict[str, Any] = {"color": GREY, "markersize": 4, "linewidth": 0.8, "zorder": 1}
            axes.plot(best["kl"], best["value"], ":x", label="best of n", **style)
    handles, names = axes.get_legend_handles_labels()
    if unique := dict(zip(names, handles, strict=True)):
        axes.legend(unique.values(), unique.keys(), fontsize=6.5, loc="lower right")


def draw_bars(table: Table) -> "Figure | None":
    """Draw the judge's metrics in the table of which more is better, with their intervals."""
    columns = [
        column
        for column in zip(*(row.cells for row in table.rows), strict=True)
        if column[0].metric.name.startswith("judge/") and column[0].metric.sign == HIGHER
    ]
    if not columns or not 2 <= len(table.rows) <= MOST_BARS:
        return None
    figure = new_figure(2.6 * -(-len(columns) // 4))
    names = [label(table, row) for row in table.rows]
    for axes, column in zip(panels_of(figure, len(columns), 4), columns, strict=True):
        for index, cell in enumerate(column):
            axes.bar(index, cell.mean or 0.0, color=colour(index), width=0.7)
            draw_interval(axes, index, cell.interval, "black")
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
        axes.set_title(column[0].heading.replace(", ", ",\n"), loc="left", fontsize=8)
        axes.grid(False, axis="x")
    return figure


def draw_interval(axes: "Axes", x: float, interval: Interval | None, color: str) -> None:
    if interval is not None:
        axes.vlines(x, *interval, color=color, linewidth=1)


def draw_effects(scores: Table) -> "Figure | None":
    """Draw the judge score by the one numeric setting that varies; of two, a line a value of the second."""
    rows = [row for row in scores.rows if row.cells[0].values]
    are_numbers = all(isinstance(value, int | float) for row in scores.rows for value in row.keys)
    if not rows or len(scores.keys) not in (1, 2) or set(scores.keys) & set(NAMES) or not are_numbers:
        return None
    figure = new_figure(2.8, WIDTH * 0.7)
    axes = figure.subplots()
    for index, other in enumerate(dict.fromkeys(row.keys[1:] for row in rows)):
        line = [(row.keys[0], row.cells[0]) for row in rows if row.keys[1:] == other]
        name = setting_text(scores.keys[1], *other) if other else None
        means = [cell.mean or 0.0 for _, cell in line]
        axes.plot([x for x, _ in line], means, color=colour(index), linewidth=0.8, label=name)
        for x, cell in line:
            draw_dots(axes, index, [x] * len(cell.values), cell.values)
            draw_interval(axes, x, cell.interval, colour(index))
    values = sorted({row.keys[0] for row in rows})
    if values[0] > 0 and values[-1] / values[0] >= 10:
        axes.set_xscale("log")
        axes.set_xticks(values, list(map(value_text, values)))
        axes.minorticks_off()
    axes.set(xlabel=key_heading(scores.keys[0]), ylabel=metric(curves.QUALITY).heading)
    if len(scores.keys) == 2:
        axes.legend()
    return figure


def draw_course(table: Table, course: Table) -> "Figure | None":
    """Draw the judge's score against KL, and by the steps of each stage that ends a method, which are its own."""
    runs = [run for row in course.rows for run in records(row.runs)]
    divergence, start = kl_axis(runs)
    points = curves.frame_of(course_points(table, course, divergence))
    figure = curves.draw_panels(table, points, metric(curves.QUALITY).heading, is_marked=True)
    if figure is not None and any(cell.metric.name == divergence for cell in course.rows[0].cells):
        draw_frontiers(figure.axes[0], runs, start)
        figure.axes[0].autoscale(axis="x")  # the optimum reaches further than the states
    return figure
