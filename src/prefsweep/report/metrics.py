"""The registry of metrics: what a table calls each of them, which way is better, and what kind of number it is.

A metric is a function in `evaluation/` that computes it, and one entry here.
"""

from dataclasses import dataclass, replace
from typing import Literal

HIGHER, LOWER = 1, -1  # which way is better
# rate: the mean of comparisons that are each 0, ½ or 1. share: another number between 0 and 1. score: on any scale.
Kind = Literal["score", "rate", "share", "cost"]


@dataclass(frozen=True)
class Metric:
    """One metric as the report knows it. A table shows it where it is named, and by default if `default`."""

    name: str
    heading: str
    sign: int = 0  # HIGHER, LOWER, or 0 where neither is better
    kind: Kind = "score"
    default: bool = False
    estimator: Literal["mean", "jackknife", "median"] = "mean"  # how its values by prompt group come about
    bound: Literal["", "≤", "≥"] = ""  # the truth is that much at most or at least: a bound has no interval, nor a mark


COSTS = {
    "seconds": "seconds",
    "labels": "labels",
    "tokens_generated": "tokens generated",
    "tokens_trained": "tokens trained",
    "episodes": "episodes",
    "flops": "FLOPs",
    "gpu_hours": "GPU-hours",
    "energy_joules": "joules",
}
# A kind of total in run.json's `cost` → the prefix of its metrics, and what their headings end in.
TOTALS = {"method": ("cost/", ""), "whole": ("cost/whole/", " of all stages"), "paid": ("cost/paid/", " paid")}

# In the order in which a table lists them.
ENTRIES = [
    Metric("judge/mean", "judge score", HIGHER, default=True),
    Metric("judge/win_rate", "win rate vs base", HIGHER, "rate", default=True),
    Metric("judge/win_rate_chosen", "win rate vs chosen", HIGHER, "rate", default=True),
    Metric("judge/mean_harmful", "judge score, harmful", HIGHER, default=True),
    Metric("judge/mean_helpful", "judge score, helpful", HIGHER, default=True),
    Metric("judge/hmr", "HmR", HIGHER, "rate", default=True),
    Metric("judge/hpr", "HpR", HIGHER, "rate", default=True),
    Metric("judge/cas", "CAS", HIGHER, "share", default=True, estimator="jackknife"),
    Metric("kl/base", "KL to base", default=True),
    Metric("kl/start", "KL to start", default=True),
    Metric("frontier/optimal_gain", "optimal gain at same KL", default=True, bound="≥"),
    Metric("frontier/efficiency", "share of optimal gain", HIGHER, default=True, bound="≤"),
    Metric("preference/accuracy", "preference accuracy", HIGHER, "rate", default=True),
    Metric("text/bleu", "BLEU", HIGHER, default=True, estimator="jackknife"),
    Metric("text/bleu1", "BLEU-1", HIGHER, default=True, estimator="jackknife"),
    Metric("text/rouge1", "ROUGE-1", HIGHER, default=True),
    Metric("text/rouge2", "ROUGE-2", HIGHER, default=True),
    Metric("text/rougeL", "ROUGE-L", HIGHER, default=True),
    Metric("text/length", "completion length", default=True),
    Metric("text/ended", "ended with EOS", kind="rate", default=True),
    Metric("judge/well_formed", "well-formed", HIGHER, "share", default=True),
    Metric("judge/gain_per_1000_labels", "gain per 1,000 labels", HIGHER),
    Metric("judge/median", "judge score, median", HIGHER, estimator="median"),
    Metric("judge/std", "judge score, standard deviation", estimator="jackknife"),
    Metric("judge/start_mean", "judge score of the start"),
    Metric("judge/start_median", "judge score of the start, median", estimator="median"),
    Metric(
        "judge/win_rate_length_controlled",
        "win rate vs base, length-controlled",
        HIGHER,
        "share",
        estimator="jackknife",
    ),
    Metric(
        "judge/win_rate_chosen_length_controlled",
        "win rate vs chosen, length-controlled",
        HIGHER,
        "share",
        estimator="jackknife",
    ),
    Metric("judge/ties", "ties with base", kind="rate"),
    Metric("judge/ties_chosen", "ties with chosen", kind="rate"),
    Metric("judge/truncated", "truncated for the judge", kind="rate"),
    Metric("preference/margin", "preference margin", HIGHER),
    Metric("preference/loss", "preference loss", LOWER),
    Metric("preference/perplexity_chosen", "perplexity of chosen", LOWER, estimator="jackknife"),
    Metric("text/rougeLsum", "ROUGE-Lsum", HIGHER),
    Metric("text/coherence", "coherence", LOWER),
    Metric("text/repetition", "repetition", LOWER),
    Metric("kl/base_per_token", "KL to base, per token", estimator="jackknife"),
    Metric("kl/start_per_token", "KL to start, per token", estimator="jackknife"),
    # Of training histories, by which `prefsweep best` may choose.
    Metric("validation/loss", "validation loss", LOWER),
    Metric("validation/score", "validation score", HIGHER),
    Metric("validation/margin", "validation margin", HIGHER),
    Metric("validation/margin_nats", "validation margin in nats", HIGHER),
    Metric("validation/accuracy", "validation accuracy", HIGHER),
    Metric("validation/judge", "judge score on validation", HIGHER),
    Metric("validation/calibration_error", "validation calibration error", LOWER),
    Metric("validation/calibration_error_scaled", "validation calibration error, scaled", LOWER),
    Metric("validation/temperature", "validation temperature"),
    Metric("validation/reward", "validation reward"),
    *(
        Metric(prefix + name, heading + suffix, LOWER, "cost")
        for prefix, suffix in TOTALS.values()
        for name, heading in COSTS.items()
    ),
]
METRICS = {entry.name: entry for entry in ENTRIES}


def metric(name: str) -> Metric:
    """Return the entry of a metric; `judge/mean@imdb` is `judge/mean` on another dataset's prompts."""
    known, _, dataset = name.partition("@")
    entry = METRICS.get(known, Metric(known, known, kind="cost" if known.startswith("cost/") else "score"))
    return replace(entry, name=name, heading=f"{entry.heading} on {dataset}") if dataset else entry
