"""Metrics of single completions, by the metric's name. A run's metric is the mean over the completions that have it."""

from collections.abc import Sequence
from statistics import fmean

Values = list[dict[str, float]]  # one dictionary a completion


def joined(*parts: Values) -> Values:
    """Merge the dictionaries of each completion."""
    return [{name: value for part in row for name, value in part.items()} for row in zip(*parts, strict=True)]


def means(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric, in the order in which the names first appear."""
    columns: dict[str, list[float]] = {}
    for row in values:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: fmean(column) for name, column in columns.items()}
