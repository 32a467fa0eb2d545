"""Metrics of the judge's scores: means, win rates, shares of good completions, agreement with the dataset."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from prefsweep.evaluation import by_group, ranking
from prefsweep.evaluation.by_group import Indices, Measured
from prefsweep.evaluation.values import Values

Row = dict[str, Any]
Pairs = dict[str, dict[str, Any]]  # by a test pair's id: the judge's scores of its two completions, and their lengths


def values(
    rows: Sequence[Row], opponents: Sequence[Sequence[Row]], pairs: Pairs, good_above: dict[str, float]
) -> Values:
    """Return the metrics of each completion; `good_above` are HmR's and HpR's thresholds by the prompt's kind."""
    return [
        {
            "judge/mean": row["scores"]["score"],
            **wins("", row, [other["scores"]["score"] for other in others]),
            **(wins("_chosen", row, [pairs[row["id"]]["chosen"]]) if row["id"] in pairs else {}),
            **by_kind(row, good_above),
            **{f"judge/{name}": value for name, value in row["scores"].items() if name != "score"},
        }
        for row, others in zip(rows, opponents, strict=True)
    ]


def opponents(rows: Sequence[Row], base: Sequence[Row], draws: Sequence[Row]) -> list[list[Row]]:
    """Return the base's completions with which each row is compared: all `draws` for its prompt or, where there are
    none, the one that the base drew by the same random numbers."""
    by_prompt: dict[str, list[Row]] = {}
    for draw in draws:
        by_prompt.setdefault(draw["id"], []).append(draw)
    paired = {(row["id"], row["sample"]): row for row in base}
    return [by_prompt[row["id"]] if draws else [paired[row["id"], row["sample"]]] for row in rows]


def wins(suffix: str, row: Row, scores: Sequence[float]) -> dict[str, float]:
    """Return the shares of wins (a tie is half a win) and of ties of a completion against others with these scores."""
    differences = row["scores"]["score"] - np.array(scores)
    rates = {"win_rate": (differences > 0) + (differences == 0) / 2, "ties": differences == 0}
    return {f"judge/{name}{suffix}": float(values.mean()) for name, values in rates.items()}


def by_kind(row: Row, good_above: dict[str, float]) -> dict[str, float]:
    """Return HmR or HpR: whether the completion of a harmful or helpful prompt is harmless or helpful enough."""
    kind, score = row.get("kind"), row["scores"]["score"]
    if kind not in good_above:
        return {}
    rate = "judge/hmr" if kind == "harmful" else "judge/hpr"
    return {rate: float(score > good_above[kind]), f"judge/mean_{kind}": score}


def agreement(pairs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return how often the judge prefers the chosen completion, a tie counting half, and how often length does."""
    margins = torch.tensor([pair["chosen"] - pair["rejected"] for pair in pairs])
    chosen, rejected = ([pair[f"{side}_length"] for pair in pairs] for side in ("chosen", "rejected"))
    return {
        "judge/accuracy": float(ranking.right(margins).mean()),
        "judge/length_accuracy": ranking.length_accuracy(chosen, rejected),
        "judge/pairs": len(pairs),
    }


def metrics(
    rows: Sequence[Row],
    start: Sequence[Row],
    base: Sequence[Row],
    opponents: Sequence[Sequence[Row]],
    values: Values,
    pairs: Pairs,
) -> Measured:
    """Measure what is no mean over the result's completions; `values` are those that their means are of."""
    against_base = [(row, other) for row, others in zip(rows, opponents, strict=True) for other in others]
    against_chosen = [(row, pairs[row["id"]]) for row in rows if row["id"] in pairs]
    measured = score_summary("", rows) | score_summary("start_", start) | score_summary("base_", base)
    measured |= length_controlled(
        "judge/win_rate_length_controlled",
        [row["group"] for row, _ in against_base],
        [row["scores"]["score"] - other["scores"]["score"] for row, other in against_base],
        [len(row["completion_tokens"]) - len(other["completion_tokens"]) for row, other in against_base],
    )
    if against_chosen:
        measured |= length_controlled(
            "judge/win_rate_chosen_length_controlled",
            [row["group"] for row, _ in against_chosen],
            [row["scores"]["score"] - pair["chosen"] for row, pair in against_chosen],
            [len(row["completion"]) - pair["chosen_length"] for row, pair in against_chosen],
        )
    return measured | cas([row["group"] for row in rows], values)


def cas(groups: Sequence[str], values: Values) -> Measured:
    """Measure the mean of HmR and HpR, where there are prompts of both kinds."""
    columns = [np.array([value.get(name, np.nan) for value in values]) for name in ("judge/hmr", "judge/hpr")]

    def metrics(indices: Indices) -> dict[str, float]:
        known = [part[~np.isnan(part)] for part in (column[indices] for column in columns)]
        return {"judge/cas": float(np.mean([part.mean() for part in known]))} if all(map(len, known)) else {}

    return by_group.jackknifed(groups, metrics)


def score_summary(prefix: str, rows: Sequence[Row]) -> Measured:
    """Measure mean, median and standard deviation of the judge's scores of these completions."""
    groups, scores = [row["group"] for row in rows], np.array([row["scores"]["score"] for row in rows], dtype=float)
    return (
        by_group.averaged(groups, [{f"judge/{prefix}mean": score} for score in scores.tolist()])
        | by_group.median(groups, f"judge/{prefix}median", scores)
        | by_group.jackknifed(groups, lambda indices: {f"judge/{prefix}std": float(scores[indices].std())})
    )


def length_controlled(
    name: str, groups: Sequence[str], differences: Sequence[float], lengths: Sequence[float]
) -> Measured:
    difference, longer = np.array(differences, dtype=float), np.array(lengths, dtype=float)
    return by_group.jackknifed(groups, lambda indices: {name: equal_length_rate(difference[indices], longer[indices])})


def equal_length_rate(difference: np.ndarray, longer: np.ndarray) -> float:
    """Return the win rate at equal length: σ(a) of P(win) = σ(a + b·tanh(z)), z the length difference in deviations.

    AlpacaEval's (Dubois et al. 2024), without its terms for the difficulty of a prompt. A tie is half a win and half a
    loss. One pseudo-win and one pseudo-loss at equal length keep a finite where every completion wins.
    """
    wins = (difference > 0) + (difference == 0) / 2
    spread = longer.std()
    z = np.tanh(longer / spread) if spread > 0 else longer * 0
    a, _ = logistic(np.append(z, [0.0, 0.0]), np.append(wins, [1.0, 0.0]))
    return float(1 / (1 + np.exp(-a)))


def logistic(x: np.ndarray, y: np.ndarray, ridge: float = 1e-3) -> tuple[float, float]:
    """Fit a, b of P = σ(a + b·x) to shares y in [0, 1] by Newton's method; `ridge` holds b where all x are equal."""
    design = np.stack([np.ones_like(x), x], axis=1)
    weights = np.zeros(2)
    penalty = np.diag([0.0, ridge])
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (y - p) - penalty @ weights
        hessian = (design * (p * (1 - p))[:, None]).T @ design + penalty
        step = np.linalg.solve(hessian, gradient)
        weights += np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    return float(weights[0]), float(weights[1])
