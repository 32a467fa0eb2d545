"""Two rows of a table against each other, a metric a line: which is better, and whether by more than noise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefsweep.errors import UserError, nearest
from prefsweep.report.cells import FEWEST_SEEDS, LEVEL, Cell, difference
from prefsweep.report.formatting import NOTHING, decimals_for, number, pipe_table, value_text
from prefsweep.report.statistics import Estimate, holm
from prefsweep.report.table import Table
from prefsweep.report.writers import csv_text

NOTE = (
    "Difference: the first minus the second, paired over seeds and prompts where both have them, ± half-width of its "
    f"95% interval. More than noise: p < .05 after Holm's correction over the lines here, from {FEWEST_SEEDS} seeds on."
)


@dataclass(frozen=True, eq=False)
class Line:
    """One metric of the two rows: their difference, and the p-value of that, corrected; None with too few seeds."""

    cells: tuple[Cell, Cell]
    difference: Estimate | None
    p_value: float | None

    @property
    def better(self) -> int | None:
        """0 or 1; None where neither is, or where neither way is better."""
        gap = self.cells[0].metric.sign * ((self.cells[0].mean or 0.0) - (self.cells[1].mean or 0.0))
        return None if gap == 0 else int(gap < 0)

    @property
    def verdict(self) -> str:
        if self.p_value is None:
            few = [len(cell.runs) for cell in self.cells if not cell.has_enough_seeds]
            return f"untested: {min(few)} seed{'s' * (min(few) != 1)}" if few else "untested: no seed in common"
        size = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return f"{'yes' if self.p_value < LEVEL else 'no'}, {size}"

    def texts(self, names: Sequence[str]) -> list[str]:
        decimals, gap = decimals_for(cell.mean for cell in self.cells), NOTHING
        if self.difference is not None:
            gap = f"{number(self.difference.mean, decimals)} ± {number(self.difference.half_width, decimals)}"
        cells = [replace(cell, decimals=decimals, expected=len(cell.values)).text for cell in self.cells]
        better = NOTHING if self.better is None else names[self.better]
        return [self.cells[0].heading, *cells, gap, better, self.verdict]


@dataclass(frozen=True, eq=False)
class Versus:
    """`rows` are the positions of the two in the table."""

    names: Sequence[str]
    rows: Sequence[int]
    lines: Sequence[Line]
    note: str

    @property
    def header(self) -> list[str]:
        return ["", *self.names, "difference", "better", "more than noise"]

    def texts(self) -> list[list[str]]:
        return [line.texts(self.names) for line in self.lines]


def versus(table: Table, names: Sequence[str]) -> Versus:
    """Compare two rows, each by the value of a key that tells it apart. Where neither way is better, neither wins."""
    rows = [row_of(table, name) for name in names]
    pairs = [pair for pair in zip(*(table.rows[row].cells for row in rows), strict=True) if all(c.values for c in pair)]
    lines = [Line(pair, difference(*pair), None) for pair in pairs]
    tested = [at for at, line in enumerate(lines) if line.difference and all(c.has_enough_seeds for c in line.cells)]
    adjusted = holm([estimate.p_value for at in tested if (estimate := lines[at].difference)])
    for at, p_value in zip(tested, adjusted, strict=True):
        lines[at] = replace(lines[at], p_value=p_value)
    methods = [row.runs["method"].iloc[0] for row in table.rows]
    tried = [methods.count(methods[row]) for row in rows]
    counts = ", ".join(f"{name} {count}" for name, count in zip(names, tried, strict=True))
    unequal = "" if len(set(tried)) == 1 else ": not equally many, and more of them have had more luck"
    return Versus(names, rows, lines, f"{NOTE} Settings tried here: {counts}{unequal}.")


def row_of(table: Table, name: str) -> int:
    matches = [at for at, row in enumerate(table.rows) if name in map(value_text, row.keys)]
    if len(matches) != 1:
        known = [value_text(value) for row in table.rows for value in row.keys]
        problem = f"{len(matches)} rows have it" if matches else f"no row has it{nearest(name, known)}"
        raise UserError(f"report.versus={name}: {problem}; name two rows by a value that one of each has")
    return matches[0]


def to_markdown(comparison: Versus) -> str:
    rules = [":--", "--:", "--:", "--:", ":--", ":--"]
    return f"{pipe_table([comparison.header, rules, *comparison.texts()])}\n\n{comparison.note}\n"


def to_csv(comparison: Versus) -> str:
    """A line a metric: raw values to the last bit, and the identity and folder of every run behind either side."""
    lines = []
    for line in comparison.lines:
        gap = (line.difference.mean, *line.difference.interval) if line.difference else (None, None, None)
        better = None if line.better is None else comparison.names[line.better]
        values: dict[str, Any] = dict(zip(("difference", "low_95", "high_95"), gap, strict=True))
        values |= {"p_holm": line.p_value, "better": better}
        for name, cell in zip(comparison.names, line.cells, strict=True):
            values |= {f"{key}_{name}": value for key, value in ({"mean": cell.mean} | cell.trail).items()}
        lines.append({"metric": line.cells[0].metric.name, **values})
    return csv_text(lines)
