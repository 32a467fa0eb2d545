"""Sample efficiency: what a method had reached on validation, by what it had taken until then.

A point is a validation. What it took is what the stage itself had counted by then and what the stages before it took,
so that PPO's curve begins where its reward model ends.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefsweep.report.choice import JUDGED, history, result_role
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
Panel = tuple[str, str]  # the measure, what it took


@dataclass(frozen=True)
class Curve:
    measure: str  # as a panel is headed: two that mean different things have different words
    values: list[float]
    taken: dict[str, list[float]]  # each as long as `values`


def draw_efficiency(data: Table, path_stem: Path) -> list[Path]:
    """A panel a measure and a price that grew meanwhile. Nothing where no stage validated twice."""
    found: dict[Panel, list[tuple[int, Curve]]] = {}
    for place, run in shown_runs(data):
        curve = read_curve(run) if run.has_result else None
        if curve is not None:
            for name in curve.taken:
                found.setdefault((curve.measure, name), []).append((place, curve))
    # A price that grew for one is drawn for all: that a reward model took its labels before ppo began is seen so.
    found = {key: lines for key, lines in found.items() if any(grew(curve.taken[key[1]]) for _, curve in lines)}
    if not found:
        return []

    def draw(axes: "Axes", key: Panel) -> None:
        measure, name = key
        scale = MINUTE if name == "seconds" else 1
        for place, curve in found[key]:
            colour, marker = style(place)
            taken = [value / scale for value in curve.taken[name]]
            axes.plot(taken, curve.values, color=colour, marker=marker, markersize=3, linewidth=0.8)
        from_zero(axes)
        axes.set_title(measure, loc="left")
        axes.set_xlabel("minutes" if scale == MINUTE else heading(f"cost/{name}"))

    ordered = sorted(found, key=lambda key: (key[0], TAKEN.index(key[1])))
    places = (place for lines in found.values() for place, _ in lines)
    return panels(data, path_stem, ordered, places, draw, NOTE, marked=True)


def grew(taken: list[float]) -> bool:
    return len(set(taken)) > 1


def read_curve(run: Run) -> Curve | None:
    """Of the stage that ends the method: by the judge, or where it judged no validation by the stage's own measure.
    None where the stage did not validate, or what it took is not known."""
    role = result_role(run)
    whole, own = run.cost.get("method"), (run.cost.get("stages") or {}).get(role)
    rows: list[dict[str, Any]] = [row for row in history(run) if "cost/flops" in row]
    known = (JUDGED, *(VALIDATION + name for name in SHOWN))
    metric = next((name for name in known if any(name in row for row in rows)), None)
    if metric is None or not whole or not own:
        return None
    rows = [row for row in rows if metric in row]
    when = {row["step"]: row["seconds"] for row in trace(run, role) if "step" in row}
    by_then = [{f"cost/{TAKEN[-1]}": when.get(row["step"])} | row for row in rows]
    taken = {
        name: [whole[name] - own[name] + row[f"cost/{name}"] for row in by_then]
        for name in TAKEN
        if name in whole and all(row.get(f"cost/{name}") is not None for row in by_then)
    }
    return Curve(in_words(run, role, metric), [row[metric] for row in rows], taken)


def in_words(run: Run, role: str, metric: str) -> str:
    """The judge's score is one measure for all methods that answered as many prompts in one way: ppo may cut queries,
    and answer at a temperature of its own."""
    if metric != JUDGED:
        return f"{role}: validation {metric.removeprefix(VALIDATION)}"
    stage = run.config["stages"][role.partition("/")[0]]
    cap = bounds(stage.get("response_tokens") or [stage["validation_max_new_tokens"]])
    said = f"judge on {stage['validation_prompts']} validation prompts,\nat most {cap} tokens"
    said += f", cut to {bounds(stage['query_tokens'])}" if stage.get("query_tokens") else ""
    return said + (f", T = {stage['temperature']:g}" if stage.get("temperature", 1) != 1 else "")


def bounds(tokens: list[int]) -> str:
    return "–".join(map(str, dict.fromkeys(tokens)))
