"""limit: the judge's score attainable at each KL to the base, by tilting many of the base's own answers."""

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

CURVES, BY_PROMPT = "frontier.json", "by_prompt.npz"
POINTS = 41  # of a curve as it is drawn


def run(
    config: FrontierConfig, *, folder: Path, context: Context, judged: Path, rewarded: Path | None = None
) -> dict[str, Any]:
    """`judged` are the answers with the judge's scores; `rewarded` with those of the reward that was optimised."""
    ids, groups, scores = read_scores(judged)
    rewards = {"judge": scores} | ({"reward": read_scores(rewarded)[2]} if rewarded else {})
    weights = frontier.resampled(groups, config.bootstrap_samples)
    count, trusted = scores.shape[1], frontier.trusted_kl(scores.shape[1], config.trusted)
    curves: dict[str, Any] = {}
    for name, tilting in rewards.items():
        curve = frontier.tilted(tilting, scores)
        if name == "judge":
            np.savez(folder / BY_PROMPT, ids=ids, groups=groups, kl=curve.kl, value=curve.value, trusted=trusted)
        ns = [2**power for power in range(count.bit_length() - 1)]
        curves[name] = {
            "attainable": list(drawn(curve, weights, trusted)),
            "best_of": [
                {"n": n, "kl": frontier.best_of_kl(n), "value": frontier.best_of(tilting, scores, n)} for n in ns
            ],
        }
    write_json(folder / CURVES, {"completions": count, "prompts": len(ids), "trusted_kl": trusted, "curves": curves})
    end = curves["judge"]["attainable"][-1]
    return {"completions": count, "prompts": len(ids), "kl": end["kl"], "attainable": end["value"]}


def drawn(curve: Curve, weights: Array, trusted: float) -> Iterator[dict[str, float]]:
    """Points up to the end of trust, closer where the curve is steep, each with its bootstrap band."""
    end = min(trusted, float(curve.mean()[0][-1]))
    for kl in end * np.linspace(0, 1, POINTS) ** 2:
        values = curve.at(np.full(len(weights), kl), weights)
        low, high = frontier.interval(values)
        yield {"kl": float(kl), "value": float(values[0]), "low": low, "high": high}


def read_scores(samples: Path) -> tuple[list[str], list[str], Array]:
    """Prompts, their groups, and [prompts, answers] the scores; a row at a time, for there may be 100,000."""
    scores: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    for row in read_jsonl(samples / SAMPLES):
        scores.setdefault(row["id"], []).append(row["scores"]["score"])
        groups[row["id"]] = row["group"]
    return list(scores), list(groups.values()), np.array(list(scores.values()))
