"""Runs → the table of a paper, as data: rows by what varies, a cell a metric, a caption that says what it all means."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefsweep.errors import UserError, nearest
from prefsweep.report.caption import caption
from prefsweep.report.cell import Cell, Marks, make_cell
from prefsweep.report.columns import HEADINGS, NOTHING, decimals_for, heading, is_cost, key_heading, value_text
from prefsweep.report.comparable import comparable_sets, reason
from prefsweep.report.completions import CompletionTable, read_completions
from prefsweep.report.frame import Run, following_seed, groups, natural, varying
from prefsweep.report.provenance import provenance
from prefsweep.report.published import Entries, published_for
from prefsweep.report.significance import marks

Left = Mapping[str, CompletionTable | None]


@dataclass(frozen=True)
class Column:
    metric: str
    across: tuple[Any, ...] = ()  # the values, where a key is spread over columns

    @property
    def heading(self) -> str:
        return ", ".join([heading(self.metric), *map(value_text, self.across)])


@dataclass(frozen=True)
class Shown:
    """A cell as it is printed."""

    text: str
    is_best: bool = False
    is_worse: bool = False

    def marked(self, best: Callable[[str], str], worse: str) -> str:
        return best(self.text) if self.is_best else self.text + (worse if self.is_worse else "")


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
    across: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    marks: tuple[Marks, ...]  # a column each
    caption: str
    provenance: str

    @property
    def header(self) -> list[str]:
        numbers = [
            name
            for place, column in enumerate(self.columns)
            for name in [column.heading, *([f"{column.heading} (published)"] if self.is_published(place) else [])]
        ]
        return [*map(key_heading, self.keys), *numbers, "runs"]

    def is_published(self, place: int) -> bool:
        return any(row.cells[place].published is not None for row in self.rows)

    def shown(self) -> list[list[Shown]]:
        """Every row as it is printed, under `header`; a column has one number of decimals."""
        places = range(len(self.columns))
        decimals = [decimals_for([row.cells[place].mean for row in self.rows]) for place in places]
        return [
            [
                *(Shown(value_text(key)) for key in row.keys),
                *(text for place in places for text in self.shown_cell(number, place, decimals[place])),
                Shown(row.tally),
            ]
            for number, row in enumerate(self.rows)
        ]

    def shown_cell(self, number: int, place: int, decimals: int) -> list[Shown]:
        row, mark = self.rows[number], self.marks[place]
        cell = row.cells[place]
        expected = row.counted if not self.across else len(cell.values)
        ours = Shown(cell.text(decimals, expected), number == mark.best, number in mark.worse)
        if not self.is_published(place):
            return [ours]
        return [ours, Shown(cell.published.text(decimals) if cell.published else NOTHING)]

    def texts(self) -> list[list[str]]:
        return [[cell.text for cell in line] for line in self.shown()]


def table(
    runs: Sequence[Run],
    metrics: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    across: Sequence[str] = (),
    published: Entries = (),
    completions: Left | None = None,
) -> Table:
    """A row for each group of runs that differ in the seed alone; `across` spreads the values of a key over columns.

    `metrics` are columns; default: those well known. Runs that are not comparable are refused."""
    left = read_all(runs) if completions is None else completions
    refuse_incomparable(runs, left)
    chosen = tuple(metrics) if metrics is not None else default_metrics(runs)
    refuse_unknown(chosen, {name for run in runs for name in run.metrics})
    keys = row_keys(runs, rows, across)
    spread = [tuple(group[0].value(key) for key in across) for group in groups(runs, across)]
    values = sorted(spread, key=lambda value: list(map(rank, value)))
    columns = tuple(Column(metric, value) for metric in chosen for value in values)
    seeded = following_seed(runs)

    def make(group: Sequence[Run], column: Column) -> Cell:
        mine = [run for run in group if tuple(run.value(key) for key in across) == column.across]
        seedless = not any(key in run.settings for run in mine for key in seeded)
        entry = published_for(mine, column.metric, published) if mine else None
        return make_cell(mine, column.metric, left, entry, seedless and bool(seeded))

    made = [
        Row(tuple(group[0].value(key) for key in keys), tuple(group), tuple(make(group, column) for column in columns))
        for group in groups(runs, keys)
    ]
    made.sort(key=lambda row: list(map(rank, row.keys)))  # the order first seen is that of folders, which end in a hash
    found = tuple(marks([row.cells[place] for row in made], column.metric) for place, column in enumerate(columns))
    cells = [cell for row in made for cell in row.cells]
    unfinished = any(not run.has_result for run in runs)
    said = caption(runs, [*keys, *across], cells, found, unfinished)
    return Table(keys, tuple(across), columns, tuple(made), found, said, provenance(runs, left, chosen))


def read_all(runs: Sequence[Run]) -> Left:
    return {run.identity: read_completions(run) if run.has_result else None for run in runs}


def refuse_incomparable(runs: Sequence[Run], completions: Left) -> None:
    sets = comparable_sets(runs, completions)
    if len(sets) > 1:
        raise UserError(
            f"table: these runs differ in {reason(sets, completions)} and share no table; name folders of runs with one "
            "judge, the same prompts and one decoding"
        )


def refuse_unknown(chosen: Sequence[str], present: set[str]) -> None:
    for name in chosen:
        if name not in present:
            raise UserError(f"{name}: no run has this metric{nearest(name, present)}")


def row_keys(runs: Sequence[Run], rows: Sequence[str] | None, across: Sequence[str]) -> tuple[str, ...]:
    """What tells rows apart. Keys that are named must leave nothing but the seed to differ within a row."""
    found = varying(runs)
    known = {*found, *(key for run in runs for key in (*run.names, *run.settings))}
    for key in [*(rows or ()), *across]:
        if key not in known:
            raise UserError(f"{key}: no run has this key{nearest(key, known)}")
    if rows is None:
        return tuple(key for key in found if key not in across) or (() if across else ("method",))
    for group in groups(runs, [*rows, *across]):
        if differing := varying(group):
            raise UserError(
                f"--rows {','.join(rows)}: would put runs that differ in {', '.join(differing[:3])} into one row; "
                "name that too"
            )
    return tuple(rows)


def default_metrics(runs: Sequence[Run]) -> tuple[str, ...]:
    present = {name for run in runs if run.has_result for name in run.metrics if not is_cost(name)}
    return tuple(name for name in HEADINGS if name in present) or tuple(sorted(present))


def rank(value: Any) -> tuple[int, float, list[list[tuple[float, str]]]]:
    """A sorting key for values of any kind: none, then numbers by size, then words."""
    if isinstance(value, int | float):
        return 1, value, []
    return (0, 0, []) if value is None else (2, 0, natural(value_text(value)))
