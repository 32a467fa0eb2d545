"""Metrics with their values by prompt group, of which tables make intervals and tests over new prompts.

A mean over rows has the means of its groups. Another metric has the jackknife's pseudo-values: with θ over all W rows
and θ₋g without the w_g rows of group g,

    θ_g = θ + (W / w_g − 1) (θ − θ₋g),

shifted so that their mean, weighted by w_g, is θ itself. Of a mean that is the group's mean, and the mean of
pseudo-values varies as the metric does (Tukey 1958; unequal groups: Busing et al. 1999), so that one formula serves
all. It does not hold for a median, which jumps: its values are Woodruff's (1952).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefsweep.evaluation.values import Values, means

FILE = "by_group.jsonl"
MOST_TIES = 0.05  # of values equal to the median: with more it stays or jumps, and no interval holds
Array = NDArray[np.float64]
Indices = NDArray[np.intp] | slice
ALL = slice(None)
Row = dict[str, Any]  # a metric, its groups, their values, and the number of rows behind each


@dataclass(frozen=True)
class Measured:
    """Metrics by name, and by prompt group those that have such values: rows of `FILE`."""

    metrics: dict[str, float] = field(default_factory=dict)
    by_group: list[Row] = field(default_factory=list)

    def __or__(self, other: "Measured") -> "Measured":
        """Return both; of a metric that both have, what the second says."""
        rows = [row for row in self.by_group if row["metric"] not in other.metrics]
        return Measured(self.metrics | other.metrics, rows + other.by_group)


def averaged(groups: Sequence[str], values: Values) -> Measured:
    """Measure means over the rows that have a value of the metric."""
    columns: dict[str, tuple[list[str], list[float]]] = {}
    for group, row in zip(groups, values, strict=True):
        for name, value in row.items():
            names, column = columns.setdefault(name, ([], []))
            names.append(group)
            column.append(value)
    by_group = []
    for name, (names, column) in columns.items():
        unique, group_of, counts = np.unique(names, return_inverse=True, return_counts=True)
        by_group.append(as_row(name, unique, np.bincount(group_of, column) / counts, counts))
    return Measured(means(values), by_group)


def jackknifed(groups: Sequence[str], function: Callable[[Indices], dict[str, float]]) -> Measured:
    """Measure what `function` says of the rows at some indices; by group where it is defined without any one group."""
    unique, group_of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    metrics = function(ALL)
    if len(unique) < 2:
        return Measured(metrics)
    without = [function(np.flatnonzero(group_of != group)) for group in range(len(unique))]
    by_group = []
    for name, value in metrics.items():
        others = np.array([part.get(name, np.nan) for part in without])
        deviations = (len(groups) / counts - 1) * (value - others)
        if np.isfinite(deviations).all():
            by_group.append(as_row(name, unique, value + deviations - deviations @ counts / len(groups), counts))
    return Measured(metrics, by_group)


def median(groups: Sequence[str], name: str, column: Array) -> Measured:
    """Measure a median; by group unless many values equal it.

    A group counts by its share of values above the median, which is a mean; the quantiles at two standard errors of
    that share around one half say how far the median moves with it.
    """
    unique, group_of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    middle = float(np.median(column))
    is_tied = column == middle
    if len(unique) < 2 or is_tied.mean() > MOST_TIES:
        return Measured({name: middle})
    above = (column > middle) + is_tied / 2
    sums = np.bincount(group_of, above - above.mean())
    error = float(np.sqrt((sums**2).sum() * len(unique) / (len(unique) - 1))) / len(column)
    low, high = np.quantile(column, np.clip((0.5 - 2 * error, 0.5 + 2 * error), 0, 1))
    slope = (high - low) / (4 * error) if error else 0.0
    return Measured({name: middle}, [as_row(name, unique, middle + slope * sums / counts, counts)])


def as_row(metric: str, groups: Any, values: Array, counts: Any) -> Row:
    return {"metric": metric, "groups": groups.tolist(), "values": values.tolist(), "rows": counts.tolist()}
