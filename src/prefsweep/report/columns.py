"""The metrics of a table: what each is called, in which order they stand, and which way is better."""

import math
from collections.abc import Sequence
from typing import Any

HEADINGS = {
    "judge/mean": "judge score",
    "judge/win_rate": "win rate vs base",
    "judge/win_rate_chosen": "win rate vs chosen",
    "judge/mean_harmful": "judge score, harmful",
    "judge/mean_helpful": "judge score, helpful",
    "judge/hmr": "HmR",
    "judge/hpr": "HpR",
    "judge/cas": "CAS",
    "kl/base": "KL to base",
    "kl/start": "KL to start",
    "frontier/optimal_gain": "optimal gain at the same KL",
    "frontier/efficiency": "of the attainable",
    "preference/accuracy": "preference accuracy",
    "text/bleu": "BLEU",
    "text/bleu1": "BLEU-1",
    "text/rouge1": "ROUGE-1",
    "text/rouge2": "ROUGE-2",
    "text/rougeL": "ROUGE-L",
    "text/length": "answer length",
    "text/ended": "ended with EOS",
    "judge/well_formed": "well-formed",
}
ASKED_FOR = {  # in a table where it is named
    "judge/gain_per_1000_labels": "gain per 1,000 labels",
    "judge/median": "judge score, median",
    "judge/start_mean": "judge score of the start",
    "judge/start_median": "judge score of the start, median",
}
# What a run took: a table shows it where it is asked to. `whole` is over all stages, `paid` what the run built itself.
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
COST = "cost/"
OVER = {"whole/": " of all stages", "paid/": " paid"}
COST_OF = {"method": COST} | {part.removesuffix("/"): COST + part for part in OVER}  # by the field of run.json's cost
# Metrics of which more is better as such. KL and length are a price or a matter of taste: nothing there is best.
MORE_IS_BETTER = {
    *("judge/mean_harmful", "judge/mean_helpful"),
    *("judge/mean", "judge/median", "judge/win_rate", "judge/win_rate_chosen"),
    *("judge/win_rate_length_controlled", "judge/win_rate_chosen_length_controlled"),
    *("judge/hmr", "judge/hpr", "judge/cas", "judge/well_formed", "preference/accuracy", "preference/margin"),
    *("frontier/efficiency", "judge/gain_per_1000_labels"),
    *("text/bleu", "text/bleu1", "text/rouge1", "text/rouge2", "text/rougeL", "text/rougeLsum"),
}
LESS_IS_BETTER = {"preference/loss", "preference/perplexity_chosen", "text/coherence", "text/repetition"}
# Shares of answers that are one thing or the other. By name: a score that happens to be 0 everywhere is no rate.
RATES = {
    *("judge/win_rate", "judge/win_rate_chosen", "judge/ties", "judge/ties_chosen", "judge/hmr", "judge/hpr"),
    *("judge/truncated", "text/ended", "preference/accuracy"),
}
# Half the sum of two rates, each of prompts of its own.
HALVES = {"judge/cas": ("judge/hmr", "judge/hpr")}
SHARES = (
    RATES | HALVES.keys() | {"judge/win_rate_length_controlled", "judge/win_rate_chosen_length_controlled"}
)  # means of such, or like them between 0 and 1
NOTHING = "–"
MILLION = 1e6


def direction(metric: str) -> int:
    """1 where more is better, −1 where less is, 0 where neither."""
    name = metric.partition("@")[0]
    return (name in MORE_IS_BETTER) - (name in LESS_IS_BETTER or name.endswith("/loss"))


def is_cost(metric: str) -> bool:
    """A price: between two of a kind the lower is better, but nobody is best by having done nothing."""
    return metric.startswith(COST)


def heading(metric: str) -> str:
    """`judge/mean@imdb` is measured on the prompts of another dataset."""
    name, _, dataset = metric.partition("@")
    if is_cost(name):
        over = next((part for part in OVER if name.startswith(COST + part)), "")
        measure = name.removeprefix(COST + over)
        return COSTS.get(measure, measure) + OVER.get(over, "")
    return (HEADINGS | ASKED_FOR).get(name, name) + (f" on {dataset}" if dataset else "")


def key_heading(key: str) -> str:
    """`dpo.beta` for `stages.dpo.beta`; every other key as it is typed."""
    return key.removeprefix("stages.")


def value_text(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, list):
        return ", ".join(map(value_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def pipe_table(rows: Sequence[Sequence[str]]) -> str:
    """In markdown, where a bar inside a cell would end it."""
    return "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in rows)


def decimals_for(means: Sequence[float | None]) -> int:
    """As many as show three digits of the column's largest value; below 0 from a million on."""
    largest = max((abs(value) for value in means if value is not None), default=0.0)
    if largest == 0:
        return 3
    found = 2 - math.floor(math.log10(largest))
    return found if largest >= MILLION else min(max(found, 0), 4)


def number(value: float, decimals: int) -> str:
    """`3.60e16` where decimals are below 0: one exponent for a whole column."""
    if decimals < 0:
        return f"{number(value / 10 ** (2 - decimals), 2)}e{2 - decimals}"
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
