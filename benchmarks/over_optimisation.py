"""Learned and true reward over the iterations of PPO in the synthetic world: docs/over-optimisation.png.

    prefsweep -m method=ppo stages.ppo.beta=0,.02,.12 stages.ppo.iterations=32 stages.ppo.schedule=constant \\
      stages.ppo.evaluate_every=4 stages.ppo.validation_prompts=128 sweep=over
    python benchmarks/over_optimisation.py multirun_sweeps/over docs/over-optimisation.png

Reads `validation.jsonl`, which holds every answer of each validation with its learned score, and asks the world for the
truth. Run it from the folder in which the sweep ran.
"""

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from prefsweep.data.synthetic import true_reward

LEARNED, TRUE = "#D55E00", "#0072B2"  # told apart by the colour-blind, and by their dashes in print


def curves(run: dict[str, Any]) -> list[tuple[int, float, float]]:
    """(iteration, learned reward, true reward), means over the validation answers."""
    folder = Path(run["config"]["runtime"]["outputs"]) / "stages/ppo" / run["stages"]["ppo"]
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    steps = sorted({row["step"] for row in rows})
    at = {step: [row for row in rows if row["step"] == step] for step in steps}
    return [
        (
            step,
            fmean(row["score"] for row in at[step]),
            fmean(true_reward(row["prompt"] + row["answer"]) for row in at[step]),
        )
        for step in steps
    ]


def main(sweep: Path, picture: Path) -> None:
    runs = [json.loads(path.read_text()) for path in sweep.glob("*/run.json")]
    runs.sort(key=lambda run: run["config"]["stages"]["ppo"]["beta"])
    figure = Figure(figsize=(2.6 * len(runs), 2.8), layout="constrained")
    for panel, run in zip(figure.subplots(1, len(runs), sharey=True, squeeze=False)[0], runs, strict=True):
        steps, learned, true = zip(*curves(run), strict=True)
        panel.plot(steps, learned, color=LEARNED, linestyle="--", marker="o", markersize=3, label="learned (optimised)")
        panel.plot(steps, true, color=TRUE, marker="o", markersize=3, label="true")
        panel.set_title(
            f"β = {run['config']['stages']['ppo']['beta']:g}, KL at the end {run['metrics']['kl/base']:.0f}", size=9
        )
        panel.set_xlabel("iteration")
        panel.grid(alpha=0.3)
    first = figure.axes[0]
    first.set_ylabel("mean reward of an answer")
    first.legend(frameon=False, fontsize=8)
    figure.savefig(picture, dpi=160)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
