"""Reward gained over reward attainable at the same KL, on the prompts whose limit is known."""

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
    """`divergence` is the metric that is KL to the model whose limit it is. Nothing where it is too little to
    divide by, or past what the curve can be believed to.

    The estimate of what is attainable is low, so the efficiency is an upper bound. Its interval is over prompts, drawn
    again in groups: answers and KL of a prompt stay with what was attainable there.
    """
    with np.load(by_prompt) as kept:
        ids, groups, trusted = kept["ids"].tolist(), kept["groups"].tolist(), float(kept["trusted"])
        curve = Curve(kept["kl"], kept["value"] - kept["value"][:, :1])  # gained over the untilted
        start = kept["value"][:, 0]
    said: dict[str, list[dict[str, float]]] = {}
    for row, value in zip(rows, values, strict=True):
        said.setdefault(row["id"], []).append(value)
    there = [place for place, name in enumerate(ids) if name in said]
    if not there:
        return {}
    scores, kls = (
        np.array([fmean(value[name] for value in said[ids[place]]) for place in there])
        for name in ("judge/mean", divergence)
    )
    curve = Curve(curve.kl[there], curve.value[there])
    weights = resampled([groups[place] for place in there], RESAMPLES)
    kl, gained = weights @ kls, weights @ (scores - start[there])
    attainable = curve.at(kl, weights)
    if not min_kl <= kl[0] <= min(trusted, curve.mean()[0][-1]) or attainable[0] <= 0:
        return {}
    low, high = interval(gained / np.maximum(attainable, np.finfo(float).tiny))
    return {
        "frontier/kl": float(kl[0]),
        "frontier/gained": float(gained[0]),
        "frontier/attainable": float(attainable[0]),
        "frontier/efficiency": float(gained[0] / attainable[0]),
        "frontier/efficiency_low": low,
        "frontier/efficiency_high": high,
    }
