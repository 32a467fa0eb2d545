"""Means over seeds and how sure they are: pure functions of a few numbers.

The interval is Student's: with S seeds, mean ± t(0.975, S − 1) · s / √S, which holds exactly for normal results and is
wide where seeds are few, as it should be (t is 12.7 at two seeds, 4.3 at three). The quantile is computed here, from
the incomplete beta function (Abramowitz and Stegun 26.5.8 and 26.7.1), because the sweep needs scipy for nothing else.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean, stdev

CONFIDENCE = 0.95


def mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def standard_deviation(values: Sequence[float]) -> float | None:
    """Of the sample (divided by n − 1); undefined below two values."""
    return stdev(values) if len(values) >= 2 else None


def half_width(values: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """What stands after the ±: half the Student-t interval of the mean; undefined below two values."""
    spread = standard_deviation(values)
    if spread is None:
        return None
    return t_quantile((1 + confidence) / 2, len(values) - 1) * spread / math.sqrt(len(values))


@lru_cache
def t_quantile(probability: float, degrees: float) -> float:
    """t with P(T ≤ t) = `probability` ≥ ½ for Student's T with `degrees` of freedom, which need not be whole.

    P(|T| > t) = I(d / (d + t²); d/2, ½) rises with its first argument, so that bisection finds it.
    """
    if not 0.5 <= probability < 1 or degrees <= 0:
        raise ValueError(f"no t quantile at probability {probability} and {degrees} degrees of freedom")
    outside = 2 * (1 - probability)
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if incomplete_beta(middle, degrees / 2, 0.5) < outside:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees * (1 - high) / high)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I(x; a, b), from the side on which its fraction converges fast."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / (a * beta_fraction(x, a, b))


def beta_fraction(x: float, a: float, b: float) -> float:
    """1 + d₁/(1 + d₂/(1 + …)), evaluated forwards by Lentz's method."""
    tiny = 1e-300
    value = numerator = 1.0
    denominator = 0.0
    for step in range(1, 1000):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / (1 + term * denominator or tiny)
        numerator = 1 + term / numerator or tiny
        change = numerator * denominator
        value *= change
        if abs(change - 1) < 1e-15:
            break
    return value
