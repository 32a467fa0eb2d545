"""What was attainable, drawn behind the runs: the best at each KL, and the best of n."""

import contextlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefsweep.report.completions import stage_folder
from prefsweep.report.frame import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = "frontier.json"
LINES = {  # by what tilts the answers: how its line is drawn, and what it is called
    "judge": ("-", "attainable"),
    "reward": ("--", "attainable by the reward, judged"),
}
DARK = "#555555"


def limits(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The curves of every reference and reward that these runs have, each once."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        folder = stage_folder(run, "frontier")
        if folder is not None:
            with contextlib.suppress(OSError, ValueError):
                for name, curve in json.loads((folder / CURVES).read_text())["curves"].items():
                    found.setdefault(json.dumps([name, curve]), {"name": name, **curve})
    return list(found.values())


def draw_limits(axes: "Axes", runs: Sequence[Run]) -> bool:
    """Whether there was anything to draw. One line of each kind is named."""
    curves = limits(runs)
    named = set[str]()
    for curve in curves:
        line, name = LINES[curve["name"]]
        points = curve["optimal"]
        kl, value = ([point[key] for point in points] for key in ("kl", "value"))
        axes.plot(kl, value, line, color=DARK, linewidth=1.1, zorder=1, label=None if name in named else name)
        named.add(name)
        if curve["name"] == "judge":
            low, high = ([point[key] for point in points] for key in ("low", "high"))
            axes.fill_between(kl, low, high, color=DARK, alpha=0.13, linewidth=0, zorder=0)
            best = [point for point in curve["best_of"] if point["kl"] <= kl[-1]]
            at, reached = ([point[key] for point in best] for key in ("kl", "value"))
            label = None if "best of n" in named else "best of n"
            axes.plot(at, reached, ":", marker="x", markersize=4, color=DARK, linewidth=0.8, zorder=1, label=label)
            named.add("best of n")
    if curves:
        axes.legend(fontsize=6.5, frameon=False, loc="lower right")
    return bool(curves)
