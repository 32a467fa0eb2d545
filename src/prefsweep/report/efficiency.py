"""Sample efficiency: what a method had reached on validation, by what it had taken until then.

A point is a validation. What it took is what the stage itself had counted by then and what the stages before it took,
so that PPO's curve begins where its reward model ends.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefsweep.report.choice import history, result_role
from prefsweep.report.columns import heading
from prefsweep.report.curves import VALIDATION, shown_runs
from prefsweep.report.drawing import from_zero, panels, style
from prefsweep.report.frame import Run
from prefsweep.report.spending import MINUTE, trace
from prefsweep.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = ("score", "accuracy", "loss")  # the first that the stage validates by: PPO's, DPO's, SFT's
TAKEN = ("labels", "tokens_generated", "flops", "seconds")
NOTE = "Line: one run, a point a validation; the stages before it are in what it took. One colour a row of the table."
Panel = tuple[str, str, str]  # the stage, what it validates by, what it took


@dataclass(frozen=True)
class Curve:
    stage: str
    metric: str
    values: list[float]
    taken: dict[str, list[float]]  # each as long as `values`


def draw_efficiency(data: Table, path_stem: Path) -> list[Path]:
    """A panel a stage, its measure and a price that grew meanwhile. Nothing where no stage validated twice."""
    found: dict[Panel, list[tuple[int, Curve]]] = {}
    for place, run in shown_runs(data):
        curve = read_curve(run) if run.has_result else None
        for name, taken in (curve.taken if curve else {}).items():
            if curve and len(set(taken)) > 1:
                found.setdefault((curve.stage, curve.metric, name), []).append((place, curve))
    if not found:
        return []

    def draw(axes: "Axes", key: Panel) -> None:
        stage, metric, name = key
        scale = MINUTE if name == "seconds" else 1
        for place, curve in found[key]:
            colour, marker = style(place)
            taken = [value / scale for value in curve.taken[name]]
            axes.plot(taken, curve.values, color=colour, marker=marker, markersize=3, linewidth=0.8)
        from_zero(axes)
        axes.set_title(f"{stage}: validation {metric}", loc="left")
        axes.set_xlabel("minutes" if scale == MINUTE else heading(f"cost/{name}"))

    ordered = sorted(found, key=lambda key: (key[:2], TAKEN.index(key[2])))
    places = (place for lines in found.values() for place, _ in lines)
    return panels(data, path_stem, ordered, places, draw, NOTE, marked=True)


def read_curve(run: Run) -> Curve | None:
    """Of the stage that ends the method; None where it did not validate, or what it took is not known."""
    role = result_role(run)
    whole, own = run.cost.get("method"), (run.cost.get("stages") or {}).get(role)
    rows: list[dict[str, Any]] = [row for row in history(run) if "cost/flops" in row]
    metric = next((name for name in SHOWN if any(VALIDATION + name in row for row in rows)), None)
    if metric is None or not whole or not own:
        return None
    rows = [row for row in rows if VALIDATION + metric in row]
    when = {row["step"]: row["seconds"] for row in trace(run, role) if "step" in row}
    by_then = [{f"cost/{TAKEN[-1]}": when.get(row["step"])} | row for row in rows]
    taken = {
        name: [whole[name] - own[name] + row[f"cost/{name}"] for row in by_then]
        for name in TAKEN
        if name in whole and all(row.get(f"cost/{name}") is not None for row in by_then)
    }
    return Curve(role, metric, [row[VALIDATION + metric] for row in rows], taken)
