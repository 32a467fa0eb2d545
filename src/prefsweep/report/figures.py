"""The figures of a sweep, each as PNG and PDF where its data is there, in the colours of the table's rows."""

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from prefsweep.pipeline.files import atomic
from prefsweep.report.captions import prompts_text
from prefsweep.report.cells import Interval
from prefsweep.report.curves import QUALITY, Point, cost, efficiency, points_of, power, training
from prefsweep.report.formatting import key_heading, value_text
from prefsweep.report.metrics import metric
from prefsweep.report.runs import NAMES, Run, input_identity, is_number, records, stage_file
from prefsweep.report.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours without the yellow, which print loses. A row has a colour and a marker, so that neither alone
# must tell rows apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#555555"
KINDS = ("png", "pdf")
WIDTH = 6.0  # inches: the text width of a page
TALLEST = 40.0  # inches: past it the PNG of a thousand rows would not fit in memory
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "pdf.fonttype": 42,  # text stays text in the PDF
    "text.parse_math": False,  # a $ in a name is a $
    "figure.constrained_layout.use": True,
}
DOT: dict[str, Any] = {"markersize": 5, "alpha": 0.75, "markeredgecolor": "white", "markeredgewidth": 0.5}
POWER = "GPU power in watts"
MOST_NAMED = 10  # rows in a legend over panels
MOST_BARS = 12  # rows: past a dozen nobody reads bars
LABEL = 24  # characters of a row's label before it breaks, between its values only
NO_BREAK = "\N{NO-BREAK SPACE}"
NOTES = {  # the line below each figure
    "figure": "Dot: one run. Bar and line below: mean and 95% interval, as in the table. One colour and shape a row.",
    "bars": "Bar: mean; line: its 95% interval, as in the table.",
    "effects": "Dot: one run; vertical line: the 95% interval of its mean.",
    "curves": "Line: training, one run; dashed: validation. One colour a row of the table.",
    "cost": "Dot: one run. What its method took from the base on, whoever paid for shared stages; judging left out.",
    "efficiency": "Line: one run, a point a validation; the stages before it are in what it took. One colour a row.",
    "power": "Line: one run, the GPUs of its process together. One colour a row of the table.",
}


def draw_figures(table: Table, scores: Table | None, folder: Path, suffix: str, keep: bool) -> list[Path]:
    """Draw each figure whose data is there into `folder`, and return the files. `scores` is the table of judge scores.

    `keep`: figures that lie there already show the same runs.
    """
    import matplotlib as mpl  # here, since a table needs no matplotlib, whose import takes longer than the table

    draw: dict[str, Callable[[], Figure | None]] = {
        "figure": lambda: draw_runs(scores) if scores is not None else None,
        "bars": lambda: draw_bars(table),
        "effects": lambda: draw_effects(table),
        "curves": lambda: draw_panels(table, training, NOTES["curves"]),
        "cost": lambda: draw_panels(table, cost, NOTES["cost"], metric(QUALITY).heading, is_marked=True),
        "efficiency": lambda: draw_panels(table, efficiency, NOTES["efficiency"], is_marked=True),
        "power": lambda: draw_panels(table, power, NOTES["power"], POWER),
    }
    written = []
    for name, draw_one in draw.items():
        paths = [folder / f"{name}{suffix}.{kind}" for kind in KINDS]
        with mpl.rc_context(STYLE):
            if not (keep and all(path.is_file() for path in paths)):
                figure = draw_one()
                if figure is None:
                    continue
                save(figure, paths)
        written += paths
    return written


def save(figure: "Figure", paths: Sequence[Path]) -> None:
    """Write the figure in the format of each suffix; equal runs give equal bytes."""
    for path in paths:
        with atomic(path) as temporary:
            dateless = {"CreationDate": None} if path.suffix == ".pdf" else None
            figure.savefig(temporary, format=path.suffix[1:], dpi=300, metadata=dateless)


def new_figure(height: float, note: str, width: float = WIDTH) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.supxlabel(note, fontsize=6.5, color=GREY)
    return figure


def colour(row: int) -> str:
    return COLOURS[row % len(COLOURS)]


def marker(row: int) -> str:
    return MARKERS[row % len(MARKERS)]


def label(table: Table, row: Row) -> str:
    """Return `dpo, gpt2, dpo.beta 0.1`, broken where it is long, without what means nothing to the row."""
    pairs = [(key, value) for key, value in zip(table.keys, row.keys, strict=True) if value is not None]
    words = [value_text(value) if key in NAMES else f"{key_heading(key)} {value_text(value)}" for key, value in pairs]
    unbroken = ", ".join(word.replace(" ", NO_BREAK) for word in words)
    lines = textwrap.wrap(unbroken, LABEL, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(NO_BREAK, " ") or "all runs"


def grid_of(figure: "Figure", count: int, across: int) -> "list[Axes]":
    """Return `count` panels, at most `across` a line and the lines equally full."""
    down = -(-count // across)
    axes = list(figure.subplots(down, -(-count // down), squeeze=False).flat)
    for empty in axes[count:]:
        empty.set_axis_off()
    return axes[:count]


def draw_panels(
    table: Table, read: Callable[[Run], Iterator[Point]], note: str, ylabel: str = "", is_marked: bool = False
) -> "Figure | None":
    """Draw a panel for each `panel` and `xlabel` of the points, two a line, under a legend of the rows."""
    points = points_of(table, read)
    panels: list[Any] = list(points.groupby(["panel", "xlabel"], sort=False))
    if not panels:
        return None
    figure = new_figure(0.9 + 1.9 * ((len(panels) + 1) // 2), note)
    grid = grid_of(figure, len(panels), 2)
    for axes, ((title, xlabel), part) in zip(grid, panels, strict=True):
        for (row, _, line), of_run in part.groupby(["row", "run", "line"], sort=False):
            shape, width = marker(row) if is_marked else "", 1.3 if line == "--" else 0.8
            axes.plot(of_run["x"], of_run["y"], line + shape, markersize=3.5, color=colour(row), linewidth=width)
        if is_marked:  # from 0, with room for a marker at either end
            most = axes.dataLim.x1 or 1
            axes.set_xlim(-0.03 * most, 1.04 * most)
        axes.set_ylim(bottom=0 if ylabel == POWER else None)
        axes.set_title(title, loc="left")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
    for row in sorted(points["row"].unique())[:MOST_NAMED]:
        name = label(table, table.rows[row])
        grid[0].plot([], [], marker(row) if is_marked else "-", color=colour(row), label=name)
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)), frameon=False, fontsize=7)
    return figure


def draw_runs(table: Table) -> "Figure":
    """Draw every run beside its row's mean and interval, and the score against KL where all share one base."""
    runs = [run for row in table.rows for run in records(row.cells[0].runs)]
    bases = {input_identity(run, "base") for run in runs} - {None}
    has_kl = len(bases) <= 1 and any(is_number(run.get("kl/base")) for run in runs)
    lines = sum(max(2, len(label(table, row).split("\n"))) for row in table.rows)
    figure = new_figure(min(max(1.0 + 0.17 * lines, 2.7 if has_kl else 1.5), TALLEST), NOTES["figure"])
    panels = figure.subplots(1, 1 + has_kl, squeeze=False, width_ratios=[1.1, 1][: 1 + has_kl])[0]
    draw_rows(panels[0], table)
    if has_kl:
        draw_against_kl(panels[1], table)
    return figure


def draw_rows(axes: "Axes", table: Table) -> None:
    """Draw a line a row, the first on top as in the table: dots, and below them their mean and interval."""
    for index, row in enumerate(table.rows):
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
    axes.set_yticks(range(len(table.rows)), [label(table, row) for row in table.rows])
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    prompts = prompts_text(pd.concat([row.runs for row in table.rows]))
    axes.set_xlabel(metric(QUALITY).heading + (f" ({prompts})" if prompts else ""))
    axes.set_title("Every run", loc="left")
    axes.locator_params(axis="x", nbins=5)


def draw_dots(axes: "Axes", row: int, x: Sequence[float], y: Sequence[float]) -> None:
    axes.plot(x, y, marker(row), color=colour(row), **DOT)


def draw_against_kl(axes: "Axes", table: Table) -> None:
    """Draw how far each run went, what it got, and the optimal reward at the same KL."""
    rows = [records(row.cells[0].runs) for row in table.rows]
    runs = [run for row in rows for run in row]
    divergence, start = kl_axis(runs)
    draw_frontiers(axes, [run for run in runs if start is None or input_identity(run, "start") == start])
    for index, row in enumerate(rows):
        points = [(kl, run[QUALITY]) for run in row if (kl := kl_of(run, divergence, start)) is not None]
        draw_dots(axes, index, [kl for kl, _ in points], [score for _, score in points])
    axes.set_xlabel(metric(divergence).heading)
    axes.set_ylabel(metric(QUALITY).heading)
    axes.set_title(f"Against {metric(divergence).heading}", loc="left")
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


def draw_frontiers(axes: "Axes", runs: Sequence[Run]) -> None:
    """Draw the optimal reward at each KL behind the runs, and the best of n. One line of each kind is named."""
    lines = {"judge": ("-", "optimal at the same KL"), "reward": ("--", "optimal by the reward, judged")}
    curves = read_frontiers(runs)
    for curve in curves:
        line, name = lines[curve["name"]]
        points = pd.DataFrame(curve["optimal"])
        axes.plot(points["kl"], points["value"], line, color=GREY, linewidth=1.1, zorder=1, label=name)
        if curve["name"] == "judge":
            band = points["kl"], points["low"], points["high"]
            axes.fill_between(*band, color=GREY, alpha=0.13, linewidth=0, zorder=0)
            best = pd.DataFrame(curve["best_of"]).query("kl <= @points.kl.max()")
            style: dict[str, Any] = {"color": GREY, "markersize": 4, "linewidth": 0.8, "zorder": 1}
            axes.plot(best["kl"], best["value"], ":x", label="best of n", **style)
    if curves:
        handles, names = axes.get_legend_handles_labels()
        unique = dict(zip(names, handles, strict=True))
        axes.legend(unique.values(), unique.keys(), fontsize=6.5, frameon=False, loc="lower right")


def draw_bars(table: Table) -> "Figure | None":
    """Draw the judge's metrics in the table of which more is better, with their intervals."""
    columns = [
        column
        for column in zip(*(row.cells for row in table.rows), strict=True)
        if column[0].metric.name.startswith("judge/") and column[0].metric.better == "higher"
    ]
    if not columns or table.across or not 2 <= len(table.rows) <= MOST_BARS:
        return None
    figure = new_figure(2.6 * -(-len(columns) // 4), NOTES["bars"])
    for axes, column in zip(grid_of(figure, len(columns), 4), columns, strict=True):
        for index, cell in enumerate(column):
            axes.bar(index, cell.mean or 0.0, color=colour(index), width=0.7)
            draw_interval(axes, index, cell.interval, "black")
        names = [label(table, row) for row in table.rows]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
        axes.set_title(column[0].heading.replace(", ", ",\n"), loc="left", fontsize=8)
        axes.grid(False, axis="x")
    return figure


def draw_interval(axes: "Axes", x: float, interval: Interval | None, color: str) -> None:
    if interval is not None:
        axes.vlines(x, *interval, color=color, linewidth=1)


def draw_effects(table: Table) -> "Figure | None":
    """Draw the judge score by the one numeric setting that varies; of two, a line a value of the second."""
    index = next((at for at, cell in enumerate(table.rows[0].cells) if cell.metric.name == QUALITY), None)
    rows = [row for row in table.rows if index is not None and row.cells[index].values]
    keys = [value for row in table.rows for value in row.keys]
    is_numeric = all(isinstance(value, int | float) for value in keys) and not set(table.keys) & set(NAMES)
    if index is None or not rows or table.across or len(table.keys) not in (1, 2) or not is_numeric:
        return None
    figure = new_figure(2.8, NOTES["effects"], WIDTH * 0.7)
    axes = figure.subplots()
    for at, other in enumerate(dict.fromkeys(row.keys[1:] for row in rows)):
        line = [(row.keys[0], row.cells[index]) for row in rows if row.keys[1:] == other]
        text = f"{key_heading(table.keys[-1])} {value_text(other[0])}" if other else None
        axes.plot(
            [x for x, _ in line], [cell.mean or 0.0 for _, cell in line], color=colour(at), linewidth=0.8, label=text
        )
        for x, cell in line:
            draw_dots(axes, at, [x] * len(cell.values), cell.values)
            draw_interval(axes, x, cell.interval, colour(at))
    values = sorted({row.keys[0] for row in rows})
    if values[0] > 0 and values[-1] / values[0] >= 10:
        axes.set_xscale("log")
        axes.set_xticks(values, list(map(value_text, values)))
        axes.minorticks_off()
    axes.set_xlabel(key_heading(table.keys[0]))
    axes.set_ylabel(metric(QUALITY).heading)
    if len(table.keys) == 2:
        axes.legend(fontsize=7, frameon=False)
    return figure
