"""Show the reward that PPO optimised beside another scorer's over its iterations: a table, and a figure for docs/.

    prefsweep -m method=ppo stages.ppo.kl_coef=0,.02,.12 stages.ppo.iterations=32 stages.ppo.schedule=constant \\
      stages.ppo.evaluate_every=4 stages.ppo.validation_prompts=128 sweep=over
    python benchmarks/over_optimisation.py multirun_sweeps/over docs/over-optimisation.png

Reads `validation.jsonl`, which holds every completion of each validation with its learned score, and has another scorer
score them: the synthetic world's truth, or whatever comes third (`deberta-v3 path=FOLDER`). Run it from the folder in
which the sweep ran.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from prefsweep.config.compose import compose, composing
from prefsweep.models.loading import device
from prefsweep.models.scorers import Scorer, load_scorer

LEARNED, OTHER = "#D55E00", "#0072B2"  # told apart by the colour-blind, and by their dashes in print


@dataclass(frozen=True)
class Curve:
    """Means over the completions of each validation."""

    kl_coef: float
    steps: list[int]
    measures: dict[str, list[float]]  # learned, those of the other scorer, KL


def curve(run: dict[str, Any], other: Scorer) -> Curve:
    folder = Path(run["config"]["runtime"]["outputs"]) / "stages/ppo" / run["stages"]["ppo"]
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    steps = sorted({row["step"] for row in rows})
    measures: dict[str, list[float]] = {}
    for step in steps:
        at = [row for row in rows if row["step"] == step]
        measured = other.score(*([row[name] for row in at] for name in ("prompt", "completion", "ended")))
        (kl,) = (row["validation/kl"] for row in history if row["step"] == step and "validation/kl" in row)
        values = {"learned": [row["score"] for row in at], **measured, "KL": [kl]}
        for name, each in values.items():
            measures.setdefault(name, []).append(fmean(each))
    return Curve(run["config"]["stages"]["ppo"]["kl_coef"], steps, measures)


def table(curves: list[Curve]) -> str:
    """Markdown: one row per iteration, one block of columns per run."""
    heads = [f"kl_coef {each.kl_coef:g}: {name}" for each in curves for name in each.measures]
    lines = [["iteration", *heads], ["---"] * (1 + len(heads))]
    for index, step in enumerate(curves[0].steps):
        columns = [(name, values[index]) for each in curves for name, values in each.measures.items()]
        lines.append([str(step), *(f"{value:.0f}" if name == "KL" else f"{value:.2f}" for name, value in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(curves: list[Curve], other: str, picture: Path) -> None:
    figure = Figure(figsize=(2.6 * len(curves), 2.8), layout="constrained")
    for panel, each in zip(figure.subplots(1, len(curves), sharey=True, squeeze=False)[0], curves, strict=True):
        learned, score = each.measures["learned"], each.measures["score"]
        panel.plot(each.steps, learned, "--o", color=LEARNED, markersize=3, label="learned (optimised)")
        panel.plot(each.steps, score, "-o", color=OTHER, markersize=3, label=other)
        panel.set_title(f"kl_coef = {each.kl_coef:g}, KL at the end {each.measures['KL'][-1]:.0f}", size=9)
        panel.set_xlabel("iteration")
        panel.grid(alpha=0.3)
    first = figure.axes[0]
    first.set_ylabel("mean reward of a completion")
    first.legend(frameon=False, fontsize=8)
    figure.savefig(picture, dpi=160)


def main(sweep: str, picture: str, name: str = "oracle", *settings: str) -> None:
    with composing():
        config = compose([f"scorer@judge={name}", *(f"judge.{config_field}" for config_field in settings)])
    other = load_scorer(config.judge, device(config.runtime))
    runs = [json.loads(path.read_text()) for path in Path(sweep).glob("*/run.json")]
    built = [run for run in runs if run["status"] in ("finished", "diverged")]
    curves = sorted((curve(run, other) for run in built), key=lambda each: each.kl_coef)
    print(table(curves))
    draw(curves, "true" if name == "oracle" else name, Path(picture))


if __name__ == "__main__":
    main(*sys.argv[1:])
