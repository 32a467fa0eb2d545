"""The picture of a sweep: every run a dot beside its row's mean and interval, and what the score cost in KL."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefsweep.report.caption import sampled
from prefsweep.report.columns import heading
from prefsweep.report.drawing import WIDTH, label, picture, style
from prefsweep.report.frame import Run
from prefsweep.report.limits import draw_limits
from prefsweep.report.table import Row, Table, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TALLEST = 40.0  # inches: past it rows move together, or the PNG of a thousand rows would not fit in memory
NOTE = "Dot: one run. Bar and line below: mean and its 95% interval, as in the table. One colour and shape a row."
BASE, START = "kl/base", "kl/start"
LIMIT_OF = "stages.evaluate.frontier_of"
BASES, STARTS, RESULTS = (
    "generate/base",
    "generate/start",
    "generate/result",
)  # the stages whose identities tell policies apart
DOT: dict[str, Any] = {"markersize": 5, "alpha": 0.75, "markeredgecolor": "white", "markeredgewidth": 0.5}
ABSENT: dict[str, Any] = {"color": "#777777", "style": "italic", "fontsize": 7}


def draw(runs: Sequence[Run], path_stem: Path, metric: str = "judge/mean") -> list[Path]:
    """Write `path_stem`.png and .pdf; nothing where no run has the metric. Returns what was written."""
    counted = [run for run in runs if run.has_result]
    if not any(metric in run.metrics for run in counted):
        return []
    beside = metric != BASE and one_base(counted)
    beside = beside and any(BASE in run.metrics and metric in run.metrics for run in counted)
    data = table(runs, [metric])

    def fill(figure: "Figure") -> None:
        panels = figure.subplots(1, 2 if beside else 1, squeeze=False, width_ratios=[1.1, 1] if beside else [1])[0]
        draw_rows(panels[0], data, metric)
        if beside:
            draw_tradeoff(panels[1], data, metric)
        figure.supxlabel(NOTE, fontsize=6.5, color="#555555")

    return picture(path_stem, (WIDTH, height(data, beside)), fill)


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
    """How far each run went, what it got, and what was to be had. Colours are those of the rows."""
    runs = [run for row in data.rows for run in row.cells[0].runs]
    divergence, start = axis(runs)
    if metric == "judge/mean":
        draw_limits(axes, [run for run in runs if start is None or run.stages.get(STARTS) == start])
    for place, row in enumerate(data.rows):
        colour, marker = style(place)
        far = [
            (kl, run.metrics[metric])
            for run in row.cells[0].runs
            if (kl := distance(run, divergence, start)) is not None
        ]
        axes.plot([kl for kl, _ in far], [reached for _, reached in far], marker, color=colour, **DOT)
    axes.set_xlabel(heading(divergence))
    axes.set_ylabel(heading(metric))
    axes.set_title(f"Against {heading(divergence)}", loc="left")
    axes.margins(0.08)


def one_base(runs: Sequence[Run]) -> bool:
    """KL to one model and KL to another are no one axis."""
    return len({run.stages[BASES] for run in runs if BASES in run.stages}) <= 1


def axis(runs: Sequence[Run]) -> tuple[str, str | None]:
    """KL to the base, which all runs share; where their limit is their start's, KL to the start that most of them have,
    and which answers are that start's."""
    of_start = [run for run in runs if run.value("stages.evaluate.frontier") and run.value(LIMIT_OF) == "start"]
    starts = Counter(run.stages[STARTS] for run in of_start if STARTS in run.stages)
    return (START, starts.most_common(1)[0][0]) if starts else (BASE, None)


def distance(run: Run, divergence: str, start: str | None) -> float | None:
    """None where the run has no place on this axis: another start has another."""
    if start is None or run.stages.get(STARTS) == start:
        return run.metrics.get(divergence)
    return 0.0 if run.stages.get(RESULTS) == start else None  # the start itself
