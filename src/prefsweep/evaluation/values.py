"""What is said of each answer, by the metric's name; a metric of a run is the mean over the answers that have it."""

from collections.abc import Sequence
from statistics import fmean

Values = list[dict[str, float]]  # one an answer


def joined(*parts: Values) -> Values:
    """All that is said of each answer."""
    return [{name: value for part in said for name, value in part.items()} for said in zip(*parts, strict=True)]


def means(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """By name, in the order in which the names come up."""
    columns: dict[str, list[float]] = {}
    for said in values:
        for name, value in said.items():
            columns.setdefault(name, []).append(value)
    return {name: fmean(column) for name, column in columns.items()}
