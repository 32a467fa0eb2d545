"""How often the intervals of a table hold the truth, and how often its tests call two equal methods different.

    python benchmarks/coverage.py [draws [metric]]

Two methods with one distribution, 3 and 5 seeds, 50 prompts of one completion, in each of several worlds: metrics
differ between seeds (more or less), prompts, and a method's own prompts. Coverage is of the mean over all draws; level
is the share of p-values below .05 in a test of the two methods' difference. Should be .92 to .97, and .04 to .06.
"""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefsweep.evaluation import by_group, judged
from prefsweep.evaluation.by_group import Measured
from prefsweep.evaluation.overlap import Bleu
from prefsweep.evaluation.preference import perplexity
from prefsweep.report.cells import interval_of
from prefsweep.report.completions import Prompts
from prefsweep.report.statistics import crossed, over_seeds

Array = NDArray[np.float64]
Generator = np.random.Generator
PROMPTS, WORDS = 50, 300
GROUPS = [f"p{number:03}" for number in range(PROMPTS)]
SEEDS = (3, 5)
SPREADS = {"few": 0.05, "some": 0.15, "many": 0.5}  # the standard deviation of seeds; of prompts and the rest it is 1
Kind = Callable[[Generator, Array], Measured]  # a metric of one seed, from the quality of its completions [prompts]


def score(rng: Generator, quality: Array) -> Measured:
    return by_group.averaged(GROUPS, [{"x": value} for value in quality.tolist()])


def rate(rng: Generator, quality: Array) -> Measured:
    return by_group.averaged(GROUPS, [{"x": float(value > -1)} for value in quality])


def win_rate(rng: Generator, quality: Array) -> Measured:
    """Against four draws of the base."""
    base = rng.normal(size=(4, PROMPTS))
    return by_group.averaged(GROUPS, [{"x": float(value)} for value in (quality > base).mean(axis=0)])


def median(rng: Generator, quality: Array) -> Measured:
    return by_group.median(GROUPS, "x", quality)


def deviation(rng: Generator, quality: Array) -> Measured:
    return by_group.jackknifed(GROUPS, lambda indices: {"x": float(quality[indices].std())})


def length_controlled(rng: Generator, quality: Array) -> Measured:
    lengths = 10 * quality + 20 * rng.normal(size=PROMPTS)
    return judged.length_controlled("x", GROUPS, quality.tolist(), lengths.tolist())


def mean_of_two_rates(rng: Generator, quality: Array) -> Measured:
    """CAS: half of the prompts are of one kind, half of the other."""
    names = ("judge/hmr", "judge/hpr")
    values = [{names[index % 2]: float(value > index % 2)} for index, value in enumerate(quality)]
    return judged.cas(GROUPS, values)


def perplexities(rng: Generator, quality: Array) -> Measured:
    tokens = np.arange(PROMPTS) % 17 + 5
    return perplexity("x", GROUPS, -tokens * (2 - 0.3 * quality), tokens)


def texts(rng: Generator, quality: Array) -> tuple[list[str], list[str]]:
    """Return completions and references; of a better completion more words are the reference's."""
    references = np.minimum(np.random.default_rng(0).geometric(0.02, (PROMPTS, 20)), WORDS)
    others = np.minimum(rng.geometric(0.02, (PROMPTS, 20)), WORDS)
    is_right = rng.random((PROMPTS, 20)) < 1 / (1 + np.exp(-quality))[:, None]
    sides = np.where(is_right, references, others), references
    completions, expected = ([" ".join(f"w{word}" for word in row) for row in side] for side in sides)
    return completions, expected


def bleu(rng: Generator, quality: Array) -> Measured:
    return by_group.jackknifed(GROUPS, Bleu(*texts(rng, quality)))


KINDS: dict[str, tuple[Kind, str]] = {  # each with the name of the metric in what it measures
    "mean of completions": (score, "x"),
    "rate": (rate, "x"),
    "win rate over four draws": (win_rate, "x"),
    "median": (median, "x"),
    "standard deviation": (deviation, "x"),
    "length-controlled win rate": (length_controlled, "x"),
    "CAS": (mean_of_two_rates, "judge/cas"),
    "perplexity": (perplexities, "x"),
    "BLEU": (bleu, "text/bleu"),
}
RATES = ("rate", "win rate over four draws")


def qualities(rng: Generator, seeds: int, spread: float) -> Array:
    """Return [seeds, prompts]: the quality of each seed's completion of each prompt."""
    of_prompts, of_seeds = rng.normal(size=(1, PROMPTS)), spread * rng.normal(size=(seeds, 1))
    quality: Array = of_prompts + of_seeds + rng.normal(size=(seeds, PROMPTS))
    return quality / math.sqrt(2)


def by_prompt(measured: Sequence[Measured], name: str) -> Prompts:
    rows = [next(row for row in of_seed.by_group if row["metric"] == name) for of_seed in measured]
    means, sizes = np.array([row["values"] for row in rows]), np.array(rows[0]["rows"], dtype=float)
    return Prompts(np.arange(float(PROMPTS)), means, sizes)


def simulate(kind: str, seeds: int, spread: float, draws: int) -> tuple[float, float]:
    """Return the coverage of the interval and the level of the test."""
    rng, (measure, name) = np.random.default_rng(1), KINDS[kind]
    means, intervals, hits = [], [], 0
    for _ in range(draws):
        methods = [[measure(rng, quality) for quality in qualities(rng, seeds, spread)] for _ in range(2)]
        one, other = (by_prompt(measured, name) for measured in methods)
        values = [of_seed.metrics[name] for of_seed in methods[0]]
        interval, _ = interval_of(values, one, kind in RATES)
        gap = crossed(one.means - other.means, one.sizes)
        assert gap is not None
        means.append(np.mean(values))
        intervals.append(interval or (math.nan, math.nan))
        hits += gap.p_value < 0.05
    low, high = np.array(intervals).T
    return float(np.mean((low <= np.mean(means)) & (np.mean(means) <= high))), hits / draws


def over_seeds_alone(seeds: int, draws: int) -> tuple[float, float]:
    """Return both of a cost, which has no prompts."""
    rng = np.random.default_rng(1)
    estimates = [(over_seeds(a), over_seeds(a - b)) for a, b in rng.normal(size=(draws, 2, seeds))]
    covered = [abs(one.mean) <= one.half_width for one, _ in estimates if one]
    return float(np.mean(covered)), float(np.mean([gap.p_value < 0.05 for _, gap in estimates if gap]))


def line(*cells: Any) -> None:
    print(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells), sep=" | ", flush=True)


def main(draws: int, kinds: Sequence[str]) -> None:
    line("metric", *(f"{seeds} seeds, {spread}: coverage | level" for seeds in SEEDS for spread in SPREADS))
    for kind in kinds:
        results = (simulate(kind, seeds, spread, draws) for seeds in SEEDS for spread in SPREADS.values())
        line(kind, *(number for result in results for number in result))
    line("cost", *(number for seeds in SEEDS for number in over_seeds_alone(seeds, 10 * draws)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, sys.argv[2:] or list(KINDS))
