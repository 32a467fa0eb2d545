"""Means and how sure they are: pure functions of numbers.

A result varies with the seed it was trained with and with the prompts it was judged on, and new ones of either would
give another number. With y[s, p] the mean over seed s's completions of prompt p, the mean of all has the variance

    σ²seed / S + σ²prompt / P + σ²seed×prompt / SP,

estimated by (MS_seed + MS_prompt − MS_rest) / SP from the two-way table's mean squares, with Satterthwaite's degrees of
freedom. Prompts of one group are not independent: the group is the unit, weighted by its completions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

import numpy as np

CONFIDENCE = 0.95
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Estimate:
    """A mean, the variance of that mean, and the degrees of freedom with which the variance is known."""

    mean: float
    variance: float
    degrees: float

    @property
    def half_width(self) -> float:
        return t_quantile((1 + CONFIDENCE) / 2, self.degrees) * math.sqrt(self.variance)

    def around(self, centre: float) -> tuple[float, float]:
        """Return the 95% interval, laid around `centre`."""
        return centre - self.half_width, centre + self.half_width

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the hypothesis that the mean is 0."""
        if self.variance == 0:
            return float(self.mean == 0)
        from scipy.special import stdtr

        return float(2 * stdtr(self.degrees, -abs(self.mean) / math.sqrt(self.variance)))


def over_seeds(values: Sequence[float]) -> Estimate | None:
    """Estimate the mean of a metric that has no value a prompt, as Student did; undefined below two values."""
    if len(values) < 2:
        return None
    return Estimate(fmean(values), stdev(values) ** 2 / len(values), len(values) - 1)


def crossed(values: Array, sizes: Array) -> Estimate | None:
    """Estimate the mean over new seeds and new prompts.

    `values[s, g]` [S, G] is the mean of seed s's completions of the prompts of group g, `sizes[g]` [G] their number.
    With one seed the estimate is over prompts alone, with one group over seeds alone; with neither there is none.
    """
    seeds, groups = values.shape
    if groups == 1:
        return over_seeds(values[:, 0].tolist())
    centre = float((values @ sizes).mean() / sizes.sum())
    # Linearised: its mean over groups is each seed's mean over completions, whatever the groups' sizes.
    table = centre + (sizes * groups / sizes.sum()) * (values - centre)
    by_seed, by_group = table.mean(axis=1), table.mean(axis=0)
    ms_group = seeds * float(by_group.var(ddof=1))
    if seeds == 1:
        return Estimate(centre, ms_group / groups, groups - 1)
    ms_seed = groups * float(by_seed.var(ddof=1))
    rest = table - by_seed[:, None] - by_group + centre
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (groups - 1))
    # Where neither seeds nor prompts matter all three are equal: less than the rest is chance.
    total = max(ms_seed + ms_group - ms_rest, ms_rest)
    return Estimate(centre, total / (seeds * groups), satterthwaite(total, ms_seed, ms_group, ms_rest, values.shape))


def satterthwaite(total: float, ms_seed: float, ms_group: float, ms_rest: float, shape: tuple[int, ...]) -> float:
    seeds, groups = shape
    spread = ms_seed**2 / (seeds - 1) + ms_group**2 / (groups - 1) + ms_rest**2 / ((seeds - 1) * (groups - 1))
    return max(total**2 / spread if spread else math.inf, min(seeds, groups) - 1)


def wilson(rate: float, n: float, degrees: float = math.inf) -> tuple[float, float]:
    """Wilson's score interval for a rate among `n`; with few degrees of freedom by Student's quantile."""
    z = t_quantile((1 + CONFIDENCE) / 2, degrees) ** 2
    centre = (rate + z / (2 * n)) / (1 + z / n)
    half = math.sqrt(z * (rate * (1 - rate) / n + z / (4 * n * n))) / (1 + z / n)
    low, high = centre - half, centre + half
    return (0.0 if rate == 0 else max(low, 0.0)), (1.0 if rate == 1 else min(high, 1.0))


def effective_size(estimate: Estimate, units: float) -> float:
    """Return how many independent completions, each of value 0 or 1, would give a rate this variance.

    A rate of 0 or 1 shows no variance, so that only its independent `units` count.
    """
    if not 0 < estimate.mean < 1 or estimate.variance == 0:
        return units
    return estimate.mean * (1 - estimate.mean) / estimate.variance


@lru_cache(maxsize=100_000)
def t_quantile(probability: float, degrees: float) -> float:
    """Return t with P(T ≤ t) = `probability` for Student's T with `degrees` of freedom, which need not be whole."""
    if not 0 < probability < 1 or degrees <= 0:
        raise ValueError(f"no t quantile at probability {probability} and {degrees} degrees of freedom")
    from scipy.special import ndtri, stdtrit  # a third of a second that `--help` need not pay

    return float(ndtri(probability) if math.isinf(degrees) else stdtrit(degrees, probability))


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """Return Holm's adjusted p-values. Of `family` possible tests those left out count as less significant than all."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    size = max(family or 0, len(p_values))
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (size - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
