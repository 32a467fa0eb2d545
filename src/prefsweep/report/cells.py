"""One metric of one row: the values of its runs, how sure their mean is, and what a paper published beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from prefsweep.report.completions import Completions, Prompts
from prefsweep.report.formatting import NOTHING, number, value_text
from prefsweep.report.metrics import Metric
from prefsweep.report.statistics import Estimate, crossed, effective_size, holm, over_seeds, wilson

AGREE = 1e-6  # values by group are a metric's own where their mean is what run.json says, to this share
FEWEST_SEEDS = 5  # for a test: with fewer, a p-value says more of the luck of three draws
LEVEL = 0.05
Interval = tuple[float, float]


class Published(NamedTuple):
    """A paper's number on our scale, with Wilson's interval where it is a rate among `n`."""

    value: float
    low: float | None
    high: float | None
    n: int | None
    source: str

    def text(self, decimals: int) -> str:
        interval = "" if self.low is None or self.high is None else bracketed((self.low, self.high), decimals)
        return number(self.value, decimals) + interval + (f" (n = {self.n})" if self.n else "")


@dataclass(eq=False)
class Cell:
    """`runs` are those of the row that have the metric, with its `values`; `expected` is how many could have it.

    `across` are the values of the keys that are spread over columns. `prompts` is the runs' metric by prompt
    group, where all were measured on the same prompts. The 95% `interval` of the mean is `over` seeds, prompts or both.
    `decimals` are those of its column. `mark_column` says whether the cell is significantly better than every other or
    worse than the best; None where there were too few runs to ask.
    """

    metric: Metric
    across: Sequence[Any]
    runs: pd.DataFrame
    values: tuple[float, ...]
    expected: int
    prompts: Prompts | None
    mean: float | None
    interval: Interval | None
    over: str
    published: Published | None = None
    decimals: int = 3
    mark: Literal["best", "worse", ""] | None = None

    @property
    def heading(self) -> str:
        return ", ".join([self.metric.heading, *map(value_text, self.across)])

    @property
    def is_rate(self) -> bool:
        return self.prompts is not None and self.metric.kind == "rate"

    @property
    def is_seedless(self) -> bool:
        """Whether nothing in the row depends on the seed."""
        return bool(self.runs["is_seedless"].all())

    @property
    def has_enough_seeds(self) -> bool:
        return len(self.runs) >= FEWEST_SEEDS or self.is_seedless

    @property
    def text(self) -> str:
        """The mean with its interval, and its n where that is not the row's."""
        is_partial = self.values and len(self.values) != self.expected
        return self.mean_text(self.decimals) + (f" (n = {len(self.values)})" if is_partial else "")

    def mean_text(self, decimals: int) -> str:
        """Return `0.573 ± 0.021`, `0.87 [0.84, 0.90]` for a rate, or `≤ 0.72` for a bound."""
        if self.mean is None or self.interval is None:
            return NOTHING if self.mean is None else f"{self.metric.bound} {number(self.mean, decimals)}".strip()
        low, high = self.interval
        half_width = f" ± {number((high - low) / 2, decimals)}"
        return number(self.mean, decimals) + (bracketed(self.interval, decimals) if self.is_rate else half_width)

    @property
    def trail(self) -> dict[str, Any]:
        """The single runs behind the cell: their values, seeds, identities and folders."""
        columns = {"seeds": "seed", "runs": "identity", "folders": "folder"}
        return {"values": self.values} | {name: tuple(self.runs[column]) for name, column in columns.items()}


def bracketed(interval: Interval, decimals: int) -> str:
    return f" [{number(interval[0], decimals)}, {number(interval[1], decimals)}]"


def make_cell(
    runs: pd.DataFrame, metric: Metric, completions: Completions, across: Sequence[Any] = (), **rest: Any
) -> Cell:
    """Return the cell of the runs of one row."""
    has_result, column = runs["has_result"].to_numpy(bool), runs[metric.name].to_numpy(float)
    has_metric = has_result & ~np.isnan(column)
    having, values = runs if has_metric.all() else runs[has_metric], tuple(column[has_metric].tolist())
    prompts = common_prompts([completions.of(identity, metric.name) for identity in having["target_identity"]], values)
    mean = fmean(values) if values else None
    interval, over = (None, "") if metric.bound else interval_of(values, prompts, metric.kind == "rate")
    return Cell(metric, across, having, values, int(has_result.sum()), prompts, mean, interval, over, **rest)


def interval_of(values: Sequence[float], prompts: Prompts | None, is_rate: bool) -> tuple[Interval | None, str]:
    """Return the 95% interval of the mean, Wilson's for a rate, else symmetric, and what it is over."""
    estimate = over_seeds(values) if prompts is None else crossed(prompts.means, prompts.sizes)
    if estimate is None or (is_constant(estimate) and not (is_rate and estimate.mean in (0, 1))):
        return None, ""  # nothing varies: one run, or a value by identity, as a rate against itself
    if prompts is None:
        return estimate.around(fmean(values)), "seeds"
    seeds, groups = prompts.means.shape
    over = "seeds" if groups == 1 else "prompts" if seeds == 1 else "seeds and prompts"
    if not is_rate:
        return estimate.around(fmean(values)), over
    rate = min(max(fmean(values), 0.0), 1.0)
    return wilson(rate, effective_size(estimate, groups), estimate.degrees), over


def is_constant(estimate: Estimate) -> bool:
    return estimate.variance <= (AGREE * max(1.0, abs(estimate.mean))) ** 2


def common_prompts(by_run: Sequence[Prompts | None], values: Sequence[float]) -> Prompts | None:
    """Return a metric of several runs by prompt group, side by side.

    None where a run has no such values, or other prompts, or the metric is not their mean.
    """
    parts = [part for part in by_run if part is not None]
    if len(parts) < len(by_run) or not parts or not all(are_same(part, parts[0]) for part in parts):
        return None
    for part, value in zip(parts, values, strict=True):
        if abs(float(part.means @ part.sizes / part.sizes.sum()) - value) > AGREE * max(1.0, abs(value)):
            return None
    return parts[0]._replace(means=np.stack([part.means for part in parts]))


def are_same(one: Prompts, other: Prompts) -> bool:
    return np.array_equal(one.groups, other.groups) and np.array_equal(one.sizes, other.sizes)


def published_for(run: Mapping[str, Any], metric: Metric, entries: Sequence[Mapping[str, Any]]) -> Published | None:
    """Return what the first entry that means this run and names the metric has of it."""
    for entry in entries:
        if metric.name in entry["metrics"] and all(run.get(key) == value for key, value in entry["where"].items()):
            value, n = float(entry["metrics"][metric.name]), entry.get("n")
            if metric.kind in ("rate", "share") and value > 1:  # published in percent
                value /= 100
            is_rate = metric.kind == "rate" and 0 <= value <= 1
            low, high = wilson(value, n) if is_rate and n else (None, None)
            return Published(value, low, high, n, entry.get("source") or "as in the experiment")
    return None


def mark_column(cells: Sequence[Cell]) -> None:
    """Give the cells of a column their marks, where runs are enough.

    The family of tests is every pair of rows, whichever turns out to be the best one. Only the best row's differences
    are computed; of the others it is assumed that they are less significant, which corrects these more strictly than
    Holm asks. Nobody is best of a cost by having done nothing. A metric without values by prompt group has no marks:
    over seeds alone a test finds differences that are the luck of the shared prompts. Nor has a bound.
    """
    metric = cells[0].metric
    entered = [cell for cell in cells if cell.prompts is not None and cell.has_enough_seeds]
    if not metric.sign or metric.kind == "cost" or metric.bound or len(entered) < 2:
        return
    best = max(entered, key=lambda cell: metric.sign * (cell.mean or 0.0))
    others = [cell for cell in entered if cell is not best]
    estimates = [difference(best, cell) for cell in others]
    p_values = [1.0 if estimate is None else estimate.p_value for estimate in estimates]
    adjusted = holm(p_values, len(entered) * (len(entered) - 1) // 2)
    for cell, p_value in zip(others, adjusted, strict=True):
        cell.mark = "worse" if p_value < LEVEL else ""
    is_clear = all(cell.mark == "worse" for cell in cells if cell is not best and cell.mean is not None)
    best.mark = "best" if is_clear else ""


def difference(one: Cell, other: Cell) -> Estimate | None:
    """Estimate one − other over seeds and prompts where both have the same prompts, else over seeds alone."""
    pairs = [] if one.metric.bound else paired_by_seed(one, other)
    if not pairs:
        return None
    if one.prompts is not None and other.prompts is not None and are_same(one.prompts, other.prompts):
        gaps = np.stack([one.prompts.means[i] - other.prompts.means[j] for i, j in pairs])
        return crossed(gaps, one.prompts.sizes)
    return over_seeds([one.values[i] - other.values[j] for i, j in pairs])


def paired_by_seed(one: Cell, other: Cell) -> list[tuple[int, int]]:
    """Return the positions of runs with one seed; a row that no seed changes stands beside each seed of the other."""
    if one.is_seedless and one.values:
        return [(0, j) for j in range(len(other.runs))]
    if other.is_seedless and other.values:
        return [(i, 0) for i in range(len(one.runs))]
    by_seed = {seed: j for j, seed in enumerate(other.runs["seed"])}
    return [(i, by_seed[seed]) for i, seed in enumerate(one.runs["seed"]) if seed in by_seed]
