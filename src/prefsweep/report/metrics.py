"""The registry of metrics: what a table calls each of them, which way is better, and what kind of number it is.

A metric is a function in `evaluation/` that computes it, and one entry here.
"""

from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["higher", "lower", "neither"]
# rate: the mean of completions that are each 0, ½ or 1. share: another number between 0 and 1. score: on any scale.
Kind = Literal["score", "rate", "share", "kl", "length", "cost"]


@dataclass(frozen=True)
class Metric:
    """One metric as the report knows it. A table shows it where it is named, and by default if `default`."""

    name: str
    heading: str
    better: Better = "neither"
    kind: Kind = "score"
    default: bool = False

    @property
    def sign(self) -> int:
        """1 where more is better, −1 where less is, 0 where neither."""
        return {"higher": 1, "lower": -1, "neither": 0}[self.better]


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
    Metric("judge/mean", "judge score", "higher", default=True),
    Metric("judge/win_rate", "win rate vs base", "higher", "rate", default=True),
    Metric("judge/win_rate_chosen", "win rate vs chosen", "higher", "rate", default=True),
    Metric("judge/mean_harmful", "judge score, harmful", "higher", default=True),
    Metric("judge/mean_helpful", "judge score, helpful", "higher", default=True),
    Metric("judge/hmr", "HmR", "higher", "rate", default=True),
    Metric("judge/hpr", "HpR", "higher", "rate", default=True),
    Metric("judge/cas", "CAS", "higher", "share", default=True),
    Metric("kl/base", "KL to base", "neither", "kl", default=True),
    Metric("kl/start", "KL to start", "neither", "kl", default=True),
    Metric("frontier/optimal_gain", "optimal gain at same KL", default=True),
    Metric("frontier/efficiency", "share of optimal gain", "higher", default=True),
    Metric("preference/accuracy", "preference accuracy", "higher", "rate", default=True),
    Metric("text/bleu", "BLEU", "higher", default=True),
    Metric("text/bleu1", "BLEU-1", "higher", default=True),
    Metric("text/rouge1", "ROUGE-1", "higher", default=True),
    Metric("text/rouge2", "ROUGE-2", "higher", default=True),
    Metric("text/rougeL", "ROUGE-L", "higher", default=True),
    Metric("text/length", "completion length", "neither", "length", default=True),
    Metric("text/ended", "ended with EOS", "neither", "rate", default=True),
    Metric("judge/well_formed", "well-formed", "higher", "share", default=True),
    Metric("judge/gain_per_1000_labels", "gain per 1,000 labels", "higher"),
    Metric("judge/median", "judge score, median", "higher"),
    Metric("judge/start_mean", "judge score of the start"),
    Metric("judge/start_median", "judge score of the start, median"),
    Metric("judge/win_rate_length_controlled", "win rate vs base, length-controlled", "higher", "share"),
    Metric("judge/win_rate_chosen_length_controlled", "win rate vs chosen, length-controlled", "higher", "share"),
    Metric("judge/ties", "ties with base", "neither", "rate"),
    Metric("judge/ties_chosen", "ties with chosen", "neither", "rate"),
    Metric("judge/truncated", "truncated for the judge", "neither", "rate"),
    Metric("preference/margin", "preference margin", "higher"),
    Metric("preference/loss", "preference loss", "lower"),
    Metric("preference/perplexity_chosen", "perplexity of chosen", "lower"),
    Metric("text/rougeLsum", "ROUGE-Lsum", "higher"),
    Metric("text/coherence", "coherence", "lower"),
    Metric("text/repetition", "repetition", "lower"),
    # Of training histories, by which `prefsweep best` may choose.
    Metric("validation/loss", "validation loss", "lower"),
    Metric("validation/score", "validation score", "higher"),
    Metric("validation/margin", "validation margin", "higher"),
    Metric("validation/margin_nats", "validation margin in nats", "higher"),
    Metric("validation/accuracy", "validation accuracy", "higher"),
    Metric("validation/judge", "judge score on validation", "higher"),
    Metric("validation/calibration_error", "validation calibration error", "lower"),
    Metric("validation/calibration_error_scaled", "validation calibration error, scaled", "lower"),
    Metric("validation/temperature", "validation temperature"),
    Metric("validation/reward", "validation reward"),
    *(
        Metric(prefix + name, heading + suffix, "lower", "cost")
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
