"""A policy's gain in reward over the optimal gain at the same KL, on the prompts of the frontier."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from prefsweep.evaluation.by_group import Measured, averaged
from prefsweep.evaluation.values import Values


def metrics(
    by_prompt: Path, rows: Sequence[dict[str, Any]], values: Values, divergence: str, min_kl: float
) -> Measured:
    """Measure the efficiency; nothing below `min_kl` or past the end of the curve.

    `by_prompt` is the frontier stage's file, `divergence` the metric of KL to the policy that it tilts. The expected
    optimal gain is a lower bound (see `frontier`), so that the efficiency is an upper one. No interval would hold the
    truth: more prompts narrow it around a number that is too high.
    """
    with np.load(by_prompt) as arrays:
        ids, groups, trusted = arrays["ids"].tolist(), arrays["groups"].tolist(), float(arrays["trusted"])
        kls, rewards = arrays["kl"], arrays["value"]
    by_id: dict[str, list[dict[str, float]]] = {}
    for row, value in zip(rows, values, strict=True):
        by_id.setdefault(row["id"], []).append(value)
    shared = [index for index, prompt_id in enumerate(ids) if prompt_id in by_id]
    if not shared:
        return Measured()
    scores, policy_kls = (
        np.array([fmean(value[name] for value in by_id[ids[index]]) for index in shared])
        for name in ("judge/mean", divergence)
    )
    gains = scores - rewards[shared, 0]
    kl, gain = float(policy_kls.mean()), float(gains.mean())
    curve_kls, curve_gains = kls[shared].mean(0), (rewards[shared] - rewards[shared, :1]).mean(0)
    optimal = float(np.interp(kl, curve_kls, curve_gains))
    if not min_kl <= kl <= min(trusted, curve_kls[-1]) or optimal <= 0:
        return Measured()
    by_prompt_values = [
        {"frontier/kl": kl_of_prompt, "frontier/gain": gain_of_prompt}
        for kl_of_prompt, gain_of_prompt in zip(policy_kls.tolist(), gains.tolist(), strict=True)
    ]
    bounds = Measured({"frontier/optimal_gain": optimal, "frontier/efficiency": gain / optimal})
    return averaged([groups[index] for index in shared], by_prompt_values) | bounds
