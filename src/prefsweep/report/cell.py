"""One metric of one row: the values of its runs, and how sure their mean is of new seeds and new prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from prefsweep.report import statistics
from prefsweep.report.columns import HALVES, NOTHING, RATES, number
from prefsweep.report.completions import CompletionTable
from prefsweep.report.frame import Run
from prefsweep.report.published import Published
from prefsweep.report.statistics import Array, Estimate

AGREE = 1e-6  # a metric's answers are its own where their mean is what run.json says, to this share


@dataclass(frozen=True)
class Prompts:
    """`means[s, g]` of run s's answers to the prompts of `groups[g]`, `sizes[g]` of them."""

    groups: tuple[str, ...]
    means: Array
    sizes: Array
    is_rate: bool


@dataclass(frozen=True)
class Cell:
    metric: str
    values: tuple[float, ...]
    runs: tuple[Run, ...]
    prompts: Prompts | None = None
    published: Published | None = None
    is_seedless: bool = False  # nothing in the row depends on the seed
    halves: tuple["Cell", ...] = ()  # of a metric that is half the sum of two rates

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values)

    @property
    def standard_deviation(self) -> float | None:
        return statistics.standard_deviation(self.values)

    @cached_property
    def estimate(self) -> Estimate | None:
        if self.prompts is not None:
            return statistics.crossed(self.prompts.means, self.prompts.sizes)
        return statistics.over_seeds(self.values)

    @property
    def over(self) -> str:
        """What the interval is over."""
        if self.interval is None:
            return ""
        if self.prompts is None or len(self.prompts.groups) == 1:
            return "seeds"
        return "prompts" if len(self.runs) == 1 else "seeds and prompts"

    @property
    def is_rate(self) -> bool:
        return self.prompts is not None and (self.prompts.is_rate or all_rates(self.halves))

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval: Wilson's for a rate, else symmetric."""
        found, centre = self.estimate, self.mean
        if found is None or centre is None:
            return None
        if all_rates(self.halves):
            said = [(half.estimate, half.interval) for half in self.halves]
            return statistics.half_sum(found, [(mine, ends) for mine, ends in said if mine and ends])
        if self.is_rate and self.prompts is not None:
            completions = float(self.prompts.sizes.sum()) * len(self.runs)
            size = statistics.effective_size(found, completions, len(self.prompts.groups))
            return statistics.wilson(min(max(centre, 0.0), 1.0), size, found.degrees)
        return centre - found.half_width, centre + found.half_width

    def text(self, decimals: int, expected: int) -> str:
        """`0.573 ± 0.021`, or `0.87 [0.84, 0.90]` for a rate; says its n where that is not the row's."""
        if self.mean is None:
            return NOTHING
        shown = number(self.mean, decimals)
        if self.interval is not None:
            low, high = self.interval
            ends = f" [{number(low, decimals)}, {number(high, decimals)}]"
            shown += ends if self.is_rate else f" ± {number((high - low) / 2, decimals)}"
        return shown + ("" if len(self.values) == expected else f" (n = {len(self.values)})")


def all_rates(halves: Sequence[Cell]) -> bool:
    return bool(halves) and all(half.is_rate and half.interval is not None for half in halves)


@dataclass(frozen=True)
class Marks:
    """Of a column: the row that is significantly better than every other, and those significantly worse than the best.

    `tested` says whether there were runs enough to ask."""

    best: int | None = None
    worse: frozenset[int] = field(default_factory=frozenset)
    tested: bool = False


def make_cell(
    group: Sequence[Run],
    metric: str,
    completions: Mapping[str, CompletionTable | None],
    published: Published | None = None,
    is_seedless: bool = False,
) -> Cell:
    having = tuple(run for run in group if run.has_result and metric in run.metrics)
    values = tuple(run.metrics[metric] for run in having)
    prompts = common_prompts([completions.get(run.identity) for run in having], metric, values)
    halves = tuple(make_cell(having, half, completions) for half in HALVES.get(metric, ()))
    return Cell(metric, values, having, prompts, published, is_seedless, halves)


def common_prompts(found: Sequence[CompletionTable | None], metric: str, values: Sequence[float]) -> Prompts | None:
    """The runs' answers side by side; None where one lacks them, or answered other prompts, or they are not what the
    metric is the mean of."""
    parts: list[tuple[list[str], Array, Array]] = []
    for completions, value in zip(found, values, strict=True):
        part: Any = None if completions is None else completions.of(metric)
        if part is None or (parts and (part[0] != parts[0][0] or not np.array_equal(part[2], parts[0][2]))):
            return None
        if abs(float(part[1] @ part[2] / part[2].sum()) - value) > AGREE * max(1.0, abs(value)):
            return None
        parts.append(part)
    if not parts:
        return None
    groups, _, sizes = parts[0]
    is_rate = metric in RATES and all(completions is not None and metric in completions.rates for completions in found)
    return Prompts(tuple(groups), np.stack([means for _, means, _ in parts]), sizes, is_rate)
