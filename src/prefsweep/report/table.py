"""Runs → the table of a paper, as data: rows by what varies, a cell a metric, a caption that says what it all means."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefsweep.errors import UserError, nearest
from prefsweep.report import statistics
from prefsweep.report.caption import caption
from prefsweep.report.frame import Run, groups, natural, varying

HEADINGS = {
    "judge/mean": "judge score",
    "judge/win_rate": "win rate vs base",
    "kl/base": "KL to base",
    "kl/start": "KL to start",
    "preference/accuracy": "preference accuracy",
    "text/length": "answer length",
    "text/ended": "ended with EOS",
    "judge/well_formed": "well-formed",
}
NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """One metric of one row: the values, and the runs they come from, one each."""

    values: tuple[float, ...]
    runs: tuple[Run, ...]

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values)

    @property
    def standard_deviation(self) -> float | None:
        return statistics.standard_deviation(self.values)

    @property
    def half_width(self) -> float | None:
        found = statistics.over_seeds(self.values)
        return None if found is None else found.half_width

    def text(self, decimals: int, expected: int) -> str:
        """`0.573 ± 0.021`; says its n where that is not the row's."""
        if self.mean is None:
            return NOTHING
        interval = "" if self.half_width is None else f" ± {number(self.half_width, decimals)}"
        count = "" if len(self.values) == expected else f" (n = {len(self.values)})"
        return number(self.mean, decimals) + interval + count


@dataclass(frozen=True)
class Row:
    keys: tuple[Any, ...]
    runs: tuple[Run, ...]
    cells: tuple[Cell, ...]

    @property
    def counted(self) -> int:
        return sum(run.has_result for run in self.runs)

    @property
    def tally(self) -> str:
        """`3 of 3`, `2 of 3 (1 failed)`: the runs that count, and what became of those that did not finish."""
        others = Counter(run.status for run in self.runs if run.status != "finished")
        note = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
        return f"{self.counted} of {len(self.runs)}" + (f" ({note})" if note else "")


@dataclass(frozen=True)
class Table:
    keys: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: str

    @property
    def header(self) -> list[str]:
        return [*map(key_heading, self.keys), *map(heading, self.metrics), "runs"]

    def texts(self) -> list[list[str]]:
        """Every cell as it is shown; a column has one number of decimals."""
        decimals = [decimals_for([row.cells[i].mean for row in self.rows]) for i in range(len(self.metrics))]
        return [
            [
                *map(value_text, row.keys),
                *(cell.text(places, row.counted) for cell, places in zip(row.cells, decimals, strict=True)),
                row.tally,
            ]
            for row in self.rows
        ]


def table(runs: Sequence[Run], metrics: Sequence[str] | None = None) -> Table:
    """A row for each group of runs that differ in the seed alone. `metrics` are columns; default: those well known."""
    chosen = tuple(metrics) if metrics is not None else default_metrics(runs)
    present = {name for run in runs for name in run.metrics}
    for name in chosen:
        if name not in present:
            raise UserError(f"{name}: no run has this metric{nearest(name, present)}")
    keys = tuple(varying(runs)) or ("method",)
    rows = [
        Row(
            keys=tuple(group[0].value(key) for key in keys),
            runs=tuple(group),
            cells=tuple(cell(group, name) for name in chosen),
        )
        for group in groups(runs)
    ]
    # The order first seen is that of folders, which end in a hash.
    rows.sort(key=lambda row: list(map(rank, row.keys)))
    return Table(
        keys, chosen, tuple(rows), caption(runs, keys, [len(cell.values) for row in rows for cell in row.cells])
    )


def default_metrics(runs: Sequence[Run]) -> tuple[str, ...]:
    present = {name for run in runs if run.has_result for name in run.metrics}
    return tuple(name for name in HEADINGS if name in present) or tuple(sorted(present))


def cell(group: Sequence[Run], metric: str) -> Cell:
    having = tuple(run for run in group if run.has_result and metric in run.metrics)
    return Cell(tuple(run.metrics[metric] for run in having), having)


def heading(metric: str) -> str:
    return HEADINGS.get(metric, metric)


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


def decimals_for(means: Sequence[float | None]) -> int:
    """As many as show three digits of the column's largest value."""
    largest = max((abs(value) for value in means if value is not None), default=0.0)
    return 3 if largest == 0 else min(max(2 - math.floor(math.log10(largest)), 0), 4)


def rank(value: Any) -> tuple[int, float, list[list[tuple[float, str]]]]:
    """A sorting key for values of any kind: none, then numbers by size, then words."""
    if isinstance(value, int | float):
        return 1, value, []
    return (0, 0, []) if value is None else (2, 0, natural(value_text(value)))


def number(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
