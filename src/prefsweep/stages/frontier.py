"""frontier: the judge's score of the optimal policy at each KL to the reference, by tilting its completions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prefsweep.config.stages import FrontierConfig
from prefsweep.evaluation import frontier
from prefsweep.evaluation.frontier import Array, Curve
from prefsweep.pipeline.files import read_jsonl, write_json
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate import SAMPLES

CURVES, BY_PROMPT = "curves.json", "by_prompt.npz"
POINTS = 41  # of a curve in CURVES


def run(
    config: FrontierConfig, *, folder: Path, context: Context, judged: Path, rewarded: Path | None = None
) -> dict[str, Any]:
    """Write the curve tilted by the judge, and with `rewarded` the one tilted by the reward that was optimised.

    `judged` and `rewarded` are folders of the same completions, scored by the one and the other.
    """
    ids, groups, scores = read_scores(judged)
    rewards = {"judge": scores} | ({"reward": read_scores(rewarded)[2]} if rewarded else {})
    weights = frontier.resampled(groups, config.bootstrap_samples)
    count = scores.shape[1]
    curves: dict[str, Any] = {}
    for name, tilting in rewards.items():
        curve, trusted = frontier.tilted(tilting, scores), frontier.trusted_kl(tilting, config.trusted)
        if name == "judge":
            np.savez(folder / BY_PROMPT, ids=ids, groups=groups, kl=curve.kl, value=curve.value, trusted=trusted)
        ns = [2**power for power in range(count.bit_length() - 1)]
        curves[name] = {
            "trusted_kl": trusted,
            "optimal": list(points(curve, weights, trusted)),
            "best_of": [
                {"n": n, "kl": frontier.best_of_kl(n), "value": frontier.best_of(tilting, scores, n)} for n in ns
            ],
        }
    write_json(folder / CURVES, {"completions": count, "prompts": len(ids), "curves": curves})
    end = curves["judge"]["optimal"][-1]
    return {"completions": count, "prompts": len(ids), "kl": end["kl"], "optimal": end["value"]}


def points(curve: Curve, weights: Array, trusted: float) -> Iterator[dict[str, float]]:
    """Yield points of the curve up to `trusted`, closer where it is steep, each with its bootstrap band."""
    end = min(trusted, float(curve.mean()[0][-1]))
    for kl in end * np.linspace(0, 1, POINTS) ** 2:
        values = curve.at(np.full(len(weights), kl), weights)
        low, high = frontier.interval(values)
        yield {"kl": float(kl), "value": float(values[0]), "low": low, "high": high}


def read_scores(samples: Path) -> tuple[list[str], list[str], Array]:
    """Return the prompts' ids, their groups, and the scores [prompts, completions], read row by row."""
    scores: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    for row in read_jsonl(samples / SAMPLES):
        scores.setdefault(row["id"], []).append(row["scores"]["score"])
        groups[row["id"]] = row["group"]
    return list(scores), list(groups.values()), np.array(list(scores.values()))
