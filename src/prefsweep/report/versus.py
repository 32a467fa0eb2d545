"""Two rows of a table against each other, a metric a line: which is better, and whether by more than noise."""

from collections.abc import Sequence
from dataclasses import dataclass

from prefsweep.errors import UserError, nearest
from prefsweep.report.cells import FEWEST_SEEDS, LEVEL, Cell, difference
from prefsweep.report.formatting import NOTHING, decimals_for, number, value_text
from prefsweep.report.statistics import Estimate, holm
from prefsweep.report.table import Table
from prefsweep.report.writers import csv_text, pipe_table

NOTE = (
    "Difference: the first minus the second, paired over seeds and prompts, of a cost over seeds, ± half-width of its "
    "95% interval. More than noise: p < .05 in a t-test with that interval's variance and degrees of freedom, after "
    f"Holm's correction over the lines here, from {FEWEST_SEEDS} seeds on."
)


@dataclass(eq=False)
class Line:
    """One metric of the two rows: their difference, and its p-value, corrected; None where no test holds its level."""

    cells: tuple[Cell, Cell]
    difference: Estimate | None
    p_value: float | None = None

    @property
    def better(self) -> int | None:
        """0 or 1; None where neither is, or where neither way is better."""
        gap = self.cells[0].metric.sign * ((self.cells[0].mean or 0.0) - (self.cells[1].mean or 0.0))
        return None if gap == 0 else int(gap < 0)

    @property
    def is_testable(self) -> bool:
        """Whether prompts enter the test: over seeds alone their luck would pass for a difference, but of a cost."""
        return all(cell.prompts is not None or cell.metric.kind == "cost" for cell in self.cells)

    @property
    def verdict(self) -> str:
        if self.cells[0].metric.bound:
            return "untested: bounds"
        if few := [len(cell.runs) for cell in self.cells if not cell.has_enough_seeds]:
            return f"untested: {min(few)} seed{'s' * (min(few) != 1)}"
        if self.p_value is None:
            return f"untested: no {'seed in common' if self.difference is None else 'values by prompt'}"
        size = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return f"{'yes' if self.p_value < LEVEL else 'no'}, {size}"

    def texts(self, names: Sequence[str]) -> list[str]:
        decimals, gap = decimals_for(cell.mean for cell in self.cells), NOTHING
        if self.difference is not None:
            gap = f"{number(self.difference.mean, decimals)} ± {number(self.difference.half_width, decimals)}"
        means = [cell.mean_text(decimals) for cell in self.cells]
        better = NOTHING if self.better is None else names[self.better]
        return [self.cells[0].heading, *means, gap, better, self.verdict]


@dataclass(frozen=True, eq=False)
class Versus:
    """`rows` are the indices of the two in the table."""

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
    """Compare two rows, each named by the value of a key that tells it apart."""
    rows = [row_of(table, name) for name in names]
    pairs = zip(*(table.rows[row].cells for row in rows), strict=True)
    lines = [Line(pair, difference(*pair)) for pair in pairs if all(cell.values for cell in pair)]
    testable = [line for line in lines if line.is_testable and all(cell.has_enough_seeds for cell in line.cells)]
    tested = [(line, line.difference.p_value) for line in testable if line.difference]
    for (line, _), adjusted in zip(tested, holm([p_value for _, p_value in tested]), strict=True):
        line.p_value = adjusted
    methods = [row.runs["method"].iloc[0] for row in table.rows]
    tried = [methods.count(methods[row]) for row in rows]
    counts = ", ".join(f"{name} {count}" for name, count in zip(names, tried, strict=True))
    unequal = "" if len(set(tried)) == 1 else ": not equally many, and more of them have had more luck"
    return Versus(names, rows, lines, f"{NOTE} Settings tried here: {counts}{unequal}.")


def row_of(table: Table, name: str) -> int:
    matches = [index for index, row in enumerate(table.rows) if name in map(value_text, row.keys)]
    if len(matches) != 1:
        values = [value_text(value) for row in table.rows for value in row.keys]
        problem = f"{len(matches)} rows have it" if matches else f"no row has it{nearest(name, values)}"
        raise UserError(f"report.versus={name}: {problem}; name two rows by a value that one of each has")
    return matches[0]


def to_markdown(comparison: Versus) -> str:
    return pipe_table(comparison.header, comparison.texts(), range(1, 4), comparison.note)


def to_csv(comparison: Versus) -> str:
    """Return a line a metric: raw values to the last bit, and identity and folder of every run behind either side."""
    lines = []
    for line in comparison.lines:
        low, high = line.difference.around(line.difference.mean) if line.difference else (None, None)
        values = {"metric": line.cells[0].metric.name, "difference": line.difference and line.difference.mean}
        values |= {"low_95": low, "high_95": high, "p_holm": line.p_value}
        values["better"] = None if line.better is None else comparison.names[line.better]
        for name, cell in zip(comparison.names, line.cells, strict=True):
            values |= {f"{key}_{name}": value for key, value in ({"mean": cell.mean} | cell.trail).items()}
        lines.append(values)
    return csv_text(lines)
