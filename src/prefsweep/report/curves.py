"""What the stages of runs left behind, as points to draw: training, sample efficiency, power and cost.

A point has `panel`, `x`, `xlabel`, `y`, and `line`, the style of the line through the points of one `run`; where known,
the ends of an interval, `low` and `high`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from prefsweep.pipeline.cost import TRACE
from prefsweep.report.choice import HISTORY, JUDGED, VALIDATION, history
from prefsweep.report.metrics import metric
from prefsweep.report.runs import Run, is_number, records, stage_rows
from prefsweep.report.style import colour, label, marker, new_figure, panels_of
from prefsweep.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = dict[str, Any]
TRAINING = {"loss": "loss", "margin": "reward margin", "score": "score"}  # of a history, each a panel
# What a method is judged by on validation: the judge, or where it saw none, what the stage measures first of these.
MEASURES = (JUDGED, *(VALIDATION + name for name in ("score", "accuracy", "loss")))
LABELS = "cost/labels"
COSTS = (LABELS, "cost/tokens_generated", "cost/flops", "cost/seconds", "cost/gpu_hours")
QUALITY = "judge/mean"
POWER = "GPU power in watts"
MOST_RUNS = 60  # lines beyond that are a blot
MOST_NAMED = 10  # rows in the legend
MINUTE = 60


def draw_panels(table: Table, points: pd.DataFrame, ylabel: str = "", is_marked: bool = False) -> "Figure | None":
    """Draw a panel for each `panel` and `xlabel` of the points, two a line, under a legend of the rows."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter

    panels: list[Any] = list(points.groupby(["panel", "xlabel"], sort=False))
    if not panels:
        return None
    figure = new_figure(0.9 + 1.9 * ((len(panels) + 1) // 2))
    grid = panels_of(figure, len(panels), 2)
    for axes, ((title, xlabel), part) in zip(grid, panels, strict=True):
        for (row, _, line), of_run in part.groupby(["row", "run", "line"], sort=False):
            shape, width = marker(row) if is_marked else "", 1.3 if line == "--" else 0.8
            axes.plot(of_run["x"], of_run["y"], line + shape, markersize=3.5, color=colour(row), linewidth=width)
            if of_run["low"].notna().any():
                axes.vlines(of_run["x"], of_run["low"], of_run["high"], color=colour(row), linewidth=1)
        if is_marked:  # from 0, with room for a marker at either end
            most = axes.dataLim.x1 or 1
            axes.set_xlim(-0.03 * most, 1.04 * most)
            if most >= 10_000:
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_ylim(bottom=0 if ylabel == POWER else None)
        axes.set_title(title, loc="left")
        axes.set(xlabel=xlabel, ylabel=ylabel)
    handles = []
    for row in sorted(points["row"].unique())[:MOST_NAMED]:
        look: dict[str, Any] = {"marker": marker(row), "linestyle": ""} if is_marked else {}
        handles.append(Line2D([], [], color=colour(row), label=label(table, table.rows[row]), **look))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
    return figure


def points_of(table: Table, read: Callable[[Run], Iterator[Point]]) -> pd.DataFrame:
    """Collect the points of the table's runs, with their `row` and `run`, in panels in which `x` differs.

    Seeds are read in turn, so that every row shows before any shows twice. Where a stage reads its data more than once,
    its points are by `epoch`.
    """
    runs = pd.concat([of.runs.assign(row=row, turn=range(len(of.runs))) for row, of in enumerate(table.rows)])
    shown = records(runs.sort_values("turn", kind="stable").head(MOST_RUNS))
    points = frame_of(point | {"row": run["row"], "run": run["identity"]} for run in shown for point in read(run))
    points = points[points.groupby(["panel", "xlabel"])["x"].transform("nunique") > 1]
    epochs = points["epoch"].astype(float).groupby(points["panel"])
    by_epoch = (epochs.transform("max") > 1) & (epochs.transform("count") == epochs.transform("size"))
    x, xlabel = points["x"].mask(by_epoch, points["epoch"]), points["xlabel"].mask(by_epoch, "epoch")
    return points.assign(x=x, xlabel=xlabel).sort_values("panel", kind="stable")


def frame_of(points: Iterable[Point]) -> pd.DataFrame:
    columns = ["panel", "xlabel", "x", "y", "line", "row", "run", "epoch", "low", "high"]
    return pd.DataFrame(list(points), columns=columns)


def training(run: Run) -> Iterator[Point]:
    """Yield loss, reward margin and score of every stage."""
    for role in run["stages"]:
        for row in stage_rows(run, role, HISTORY):
            step = {"x": row["step"], "xlabel": "step", "epoch": row.get("epoch")}
            for name, heading in TRAINING.items():
                for line, key in (("-", name), ("--", VALIDATION + name)):
                    if is_number(row.get(key)):
                        yield {"panel": f"{role}: {heading}", "line": line, "y": row[key], **step}


def power(run: Run) -> Iterator[Point]:
    """Yield the power of the GPUs of a run's process by stage, over its minutes."""
    for role in run["stages"]:
        for row in stage_rows(run, role, TRACE):
            if "watts" in row:
                yield {"panel": role, "line": "-", "x": row["seconds"] / MINUTE, "xlabel": "minutes", "y": row["watts"]}


def cost(run: Run) -> Iterator[Point]:
    """Yield the judge score over everything that the run took."""
    for name in COSTS:
        if run["has_result"] and is_number(run.get(name)) and is_number(run.get(QUALITY)):
            yield {"panel": "", "line": "", **on_axis(name, run[name]), "y": run[QUALITY]}


def on_axis(name: str, value: float) -> Point:
    if name == "cost/seconds":
        return {"x": value / MINUTE, "xlabel": "minutes"}
    return {"x": value, "xlabel": metric(name).heading}


def efficiency(run: Run) -> Iterator[Point]:
    """Yield what a method had reached on validation over what it had taken, the stages before it included.

    Nothing where the stage that ends the method did not validate, or where what it took is not known.
    """
    role = run["result"]
    rows = [row for row in history(run) if "cost/flops" in row]
    measure = next((name for name in MEASURES if any(name in row for row in rows)), None)
    if not run["has_result"] or measure is None or role not in run["stage_costs"]:
        return
    seconds = {row["step"]: row["seconds"] for row in stage_rows(run, role, TRACE) if "step" in row}
    rows = [{"cost/seconds": seconds.get(row["step"])} | row for row in rows if measure in row]
    for name in COSTS:
        if is_number(run.get(name)) and all(row.get(name) is not None for row in rows):
            before = run[name] - run["stage_costs"][role][name.removeprefix("cost/")]
            if name == LABELS:  # this stage may learn the same rows as one before it
                before = max(before, labels_before(run, role))
            for row in rows:
                axis = on_axis(name, min(before + row[name], run[name]))
                yield {"panel": measured_as(run, role, measure), "line": "-", **axis, "y": row[measure]}


def labels_before(run: Run, role: str) -> float:
    """Return the labels that the stages before `role` took, those of a judge aside."""
    costs = {name: cost for name, cost in run["stage_costs"].items() if name.partition("/")[0] not in run["judging"]}
    return float(sum(cost.get("labels", 0) for name, cost in costs.items() if name != role))


def measured_as(run: Run, role: str, measure: str) -> str:
    """Return the heading of a panel: two measures that mean different things have different ones.

    The judge's score is one measure for all methods that completed as many prompts in one way: ppo may cut prompts, and
    sample at a temperature of its own.
    """
    if measure != JUDGED:
        return f"{role}: validation {measure.removeprefix(VALIDATION)}"
    stage = f"stages.{role.partition('/')[0]}"
    cap = run.get(f"{stage}.response_tokens") or run.get(f"{stage}.validation_max_new_tokens")
    cut, temperature = run.get(f"{stage}.query_tokens"), run.get(f"{stage}.temperature")
    text = f"judge on {run.get(f'{stage}.validation_prompts')} validation prompts,\nat most {bounds(cap)} tokens"
    text += f", cut to {bounds(cut)}" if cut else ""
    return text + (f", T = {temperature:g}" if temperature not in (None, 1) else "")


def bounds(tokens: Any) -> str:
    """Return `4–16` for a range of lengths, `48` for one length."""
    return "–".join(dict.fromkeys(str(tokens).split(", ")))
