"""One metric of one row: the values of its runs, how sure their mean is, and what a paper published beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from prefsweep.report import statistics
from prefsweep.report.completions import Completions, Prompts
from prefsweep.report.formatting import NOTHING, decimals_for, number, value_text
from prefsweep.report.metrics import Metric
from prefsweep.report.statistics import Estimate, crossed, holm, over_seeds

AGREE = 1e-6  # completions are a metric's own where their mean is what run.json says, to this share
FEWEST_SEEDS = 5  # for a test: with fewer, a p-value says more of the luck of three draws
LEVEL = 0.05


@dataclass(frozen=True)
class Published:
    """A number as a paper printed it."""

    metric: Metric
    printed: float
    n: int | None
    source: str

    @property
    def value(self) -> float:
        """The number on our scale: a share above 1 was published in percent."""
        return self.printed / 100 if self.metric.kind in ("rate", "share") and self.printed > 1 else self.printed

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's for a rate; nothing else follows from a mean and its n."""
        is_rate = self.metric.kind == "rate" and 0 <= self.value <= 1
        return statistics.wilson(self.value, self.n) if is_rate and self.n else None

    def text(self, decimals: int) -> str:
        interval = bracketed(self.interval, decimals) if self.interval else ""
        return number(self.value, decimals) + interval + (f" (n = {self.n})" if self.n else "")


@dataclass(frozen=True, eq=False)
class Cell:
    """`runs` are those of the row that have the metric, with its `values`; `expected` is how many could have it.

    `across` are the values of the keys that are spread over columns. `prompts` are the runs' completions by prompt
    group, where all completed the same prompts. `is_seedless`: nothing in the row depends on the seed. `compared` fills
    in the rest: the decimals of the column, and whether the cell is significantly better than every other or worse than
    the best; `is_tested` says whether there were runs enough to ask.
    """

    metric: Metric
    runs: pd.DataFrame
    values: tuple[float, ...] = ()
    expected: int = 0
    across: tuple[Any, ...] = ()
    prompts: Prompts | None = None
    published: Published | None = None
    is_seedless: bool = False
    decimals: int = 3
    is_best: bool = False
    is_worse: bool = False
    is_tested: bool = False

    @cached_property
    def seeds(self) -> tuple[Any, ...]:
        return tuple(self.runs["seed"])

    @property
    def heading(self) -> str:
        return ", ".join([self.metric.heading, *map(value_text, self.across)])

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values)

    @property
    def is_rate(self) -> bool:
        return self.prompts is not None and self.metric.kind == "rate"

    @property
    def has_enough_seeds(self) -> bool:
        return len(self.runs) >= FEWEST_SEEDS or self.is_seedless

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean: Wilson's for a rate, else symmetric."""
        prompts, centre = self.prompts, self.mean
        estimate = over_seeds(self.values) if prompts is None else crossed(prompts.means, prompts.sizes)
        if estimate is None or centre is None:
            return None
        if self.is_rate and prompts is not None:
            completions = float(prompts.sizes.sum()) * len(self.runs)
            size = statistics.effective_size(estimate, completions, len(prompts.sizes))
            return statistics.wilson(min(max(centre, 0.0), 1.0), size, estimate.degrees)
        return centre - estimate.half_width, centre + estimate.half_width

    @property
    def interval_over(self) -> str:
        if self.interval is None:
            return ""
        if self.prompts is None or len(self.prompts.groups) == 1:
            return "seeds"
        return "prompts" if len(self.runs) == 1 else "seeds and prompts"

    @property
    def text(self) -> str:
        """`0.573 ± 0.021`, or `0.87 [0.84, 0.90]` for a rate; with its n where that is not the row's."""
        if self.mean is None:
            return NOTHING
        text = number(self.mean, self.decimals)
        if self.interval is not None:
            half_width = number((self.interval[1] - self.interval[0]) / 2, self.decimals)
            text += bracketed(self.interval, self.decimals) if self.is_rate else f" ± {half_width}"
        return text + ("" if len(self.values) == self.expected else f" (n = {len(self.values)})")

    @property
    def trail(self) -> dict[str, Any]:
        """The single runs behind the cell: their values, seeds, identities and folders."""
        runs, folders = tuple(self.runs["identity"]), tuple(self.runs["folder"])
        return {"values": self.values, "seeds": self.seeds, "runs": runs, "folders": folders}


def bracketed(interval: tuple[float, float], decimals: int) -> str:
    return f" [{number(interval[0], decimals)}, {number(interval[1], decimals)}]"


def make_cell(runs: pd.DataFrame, metric: Metric, completions: Completions, **rest: Any) -> Cell:
    """The cell of the runs of one row; `rest` are its other fields."""
    has_result, column = runs["has_result"].to_numpy(bool), runs[metric.name].to_numpy(float)
    has_metric = has_result & ~np.isnan(column)
    having, values = runs if has_metric.all() else runs[has_metric], tuple(column[has_metric].tolist())
    prompts = common_prompts([completions.of(identity, metric.name) for identity in having["target_identity"]], values)
    expected = len(values) if rest.get("across") else int(has_result.sum())
    return Cell(metric, having, values, expected, prompts=prompts, **rest)


def common_prompts(by_run: Sequence[Prompts | None], values: Sequence[float]) -> Prompts | None:
    """Return the completions of several runs side by side.

    None where a run has none, or completed other prompts, or its completions are not what the metric is the mean of.
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
            n, printed = entry.get("n"), float(entry["metrics"][metric.name])
            return Published(metric, printed, int(n) if n else None, entry.get("source") or "as in the experiment")
    return None


def compared(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of a column with one number of decimals and, where runs are enough, their marks.

    The family of tests is every pair of rows, whichever turns out to be the best one. Only the best row's differences
    are computed; of the others it is assumed that they are less significant, which corrects these more strictly than
    Holm asks. Nobody is best of a cost by having done nothing.
    """
    metric, decimals = cells[0].metric, decimals_for(cell.mean for cell in cells)
    entered = [row for row, cell in enumerate(cells) if cell.mean is not None and cell.has_enough_seeds]
    if not metric.sign or metric.kind == "cost" or len(entered) < 2:
        return [replace(cell, decimals=decimals) for cell in cells]
    best = max(entered, key=lambda row: metric.sign * (cells[row].mean or 0.0))
    others = [row for row in entered if row != best]
    differences = [difference(cells[best], cells[row]) for row in others]
    p_values = [estimate.p_value if estimate is not None else 1.0 for estimate in differences]
    adjusted = dict(zip(others, holm(p_values, len(entered) * (len(entered) - 1) // 2), strict=True))
    worse = {row for row, p_value in adjusted.items() if p_value < LEVEL}
    is_clear = len(worse) == sum(cell.mean is not None for cell in cells) - 1
    return [
        replace(cell, decimals=decimals, is_best=is_clear and row == best, is_worse=row in worse, is_tested=True)
        for row, cell in enumerate(cells)
    ]


def difference(one: Cell, other: Cell, pairs: Sequence[tuple[int, int]] | None = None) -> Estimate | None:
    """Estimate one − other over seeds and prompts where both completed the same prompts, else over seeds alone.

    `pairs` are positions of runs that are compared; by default those with one seed.
    """
    pairs = paired_by_seed(one, other) if pairs is None else pairs
    if not pairs:
        return None
    if one.prompts is not None and other.prompts is not None and are_same(one.prompts, other.prompts):
        gaps = np.stack([one.prompts.means[i] - other.prompts.means[j] for i, j in pairs])
        return crossed(gaps, one.prompts.sizes)
    return over_seeds([one.values[i] - other.values[j] for i, j in pairs])


def paired_by_seed(one: Cell, other: Cell) -> list[tuple[int, int]]:
    """Positions of runs with one seed; a row that no seed changes stands beside each seed of the other."""
    if one.is_seedless and one.values:
        return [(0, j) for j in range(len(other.runs))]
    if other.is_seedless and other.values:
        return [(i, 0) for i in range(len(one.runs))]
    by_seed = {seed: j for j, seed in enumerate(other.seeds)}
    return [(i, by_seed[seed]) for i, seed in enumerate(one.seeds) if seed in by_seed]
