"""A policy's gain in reward over the optimal gain at the same KL, on the prompts of the frontier."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from prefsweep.evaluation.frontier import Curve, interval, resampled
from prefsweep.evaluation.values import Values

RESAMPLES = 1000


def metrics(
    by_prompt: Path, rows: Sequence[dict[str, Any]], values: Values, divergence: str, min_kl: float
) -> dict[str, float]:
    """Return the efficiency and its interval; nothing below `min_kl` or past the end of the curve.

    `by_prompt` is the frontier stage's file, `divergence` the metric of KL to the policy that it tilts. The optimal
    gain is underestimated, so the efficiency is an upper bound. The interval is a bootstrap over groups of prompts: a
    prompt's completions, KL and optimal gain stay together.
    """
    with np.load(by_prompt) as arrays:
        ids, groups, trusted = arrays["ids"].tolist(), arrays["groups"].tolist(), float(arrays["trusted"])
        kls, rewards = arrays["kl"], arrays["value"]
    by_id: dict[str, list[dict[str, float]]] = {}
    for row, value in zip(rows, values, strict=True):
        by_id.setdefault(row["id"], []).append(value)
    shared = [index for index, prompt_id in enumerate(ids) if prompt_id in by_id]
    if not shared:
        return {}
    scores, policy_kls = (
        np.array([fmean(value[name] for value in by_id[ids[index]]) for index in shared])
        for name in ("judge/mean", divergence)
    )
    untilted = rewards[shared, :1]
    curve = Curve(kls[shared], rewards[shared] - untilted)
    weights = resampled([groups[index] for index in shared], RESAMPLES)
    kl, gain = weights @ policy_kls, weights @ (scores - untilted[:, 0])
    optimal = curve.at(kl, weights)
    if not min_kl <= kl[0] <= min(trusted, curve.mean()[0][-1]) or optimal[0] <= 0:
        return {}
    low, high = interval(gain / np.maximum(optimal, np.finfo(float).tiny))
    return {
        "frontier/kl": float(kl[0]),
        "frontier/gain": float(gain[0]),
        "frontier/optimal_gain": float(optimal[0]),
        "frontier/efficiency": float(gain[0] / optimal[0]),
        "frontier/efficiency_low": low,
        "frontier/efficiency_high": high,
    }
