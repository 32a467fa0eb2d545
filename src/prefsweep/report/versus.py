"""Two rows of a table against each other, a metric a line: which is better, and whether by more than noise."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from prefsweep.errors import UserError, nearest
from prefsweep.report.cell import Cell
from prefsweep.report.columns import NOTHING, decimals_for, direction, is_cost, number, pipe_table, value_text
from prefsweep.report.export import raw, trail
from prefsweep.report.significance import FEWEST_SEEDS, LEVEL, difference, enough
from prefsweep.report.statistics import Estimate, holm
from prefsweep.report.table import Row, Table

HEADER = ("difference", "better", "more than noise")
NOTE = (
    "Difference: the first minus the second, paired over seeds and prompts where both have them, ± half-width of its "
    "95% interval. More than noise: p < .05 after Holm's correction over the lines here, from {seeds} seeds on."
)


@dataclass(frozen=True)
class Line:
    metric: str
    heading: str
    cells: tuple[Cell, Cell]
    found: Estimate | None
    p_value: float | None  # corrected; None with too few seeds
    better: int | None  # 0 or 1; None where neither is, or neither way is better


@dataclass(frozen=True)
class Versus:
    names: tuple[str, str]
    places: tuple[int, int]  # of the two among the rows of the table
    lines: tuple[Line, ...]
    tried: tuple[int, int]  # rows of each one's method in the table: with how many settings each had its luck

    @property
    def header(self) -> list[str]:
        return ["", *self.names, *HEADER]

    @property
    def note(self) -> str:
        said = ", ".join(f"{name} {count}" for name, count in zip(self.names, self.tried, strict=True))
        unequal = "" if len(set(self.tried)) == 1 else ": not equally many, and more of them have had more luck"
        return f"{NOTE.format(seeds=FEWEST_SEEDS)} Settings tried here: {said}{unequal}."

    def texts(self) -> list[list[str]]:
        return [self.text(line) for line in self.lines]

    def text(self, line: Line) -> list[str]:
        decimals = decimals_for([cell.mean for cell in line.cells])
        if line.found is None:
            gap = NOTHING
        else:
            gap = f"{number(line.found.mean, decimals)} ± {number(line.found.half_width, decimals)}"
        better = NOTHING if line.better is None else self.names[line.better]
        cells = [cell.text(decimals, len(cell.values)) for cell in line.cells]
        return [line.heading, *cells, gap, better, verdict(line)]


def verdict(line: Line) -> str:
    if line.p_value is None:
        few = [len(cell.runs) for cell in line.cells if not enough(cell)]
        if not few:
            return "not asked: no seed in common"
        fewest = min(few)
        return f"not asked: {fewest} seed{'s' * (fewest != 1)}"
    said = "p < 0.001" if line.p_value < 0.001 else f"p = {line.p_value:.3f}"
    return ("yes" if line.p_value < LEVEL else "no") + f", {said}"


def versus(made: Table, names: Sequence[str]) -> Versus:
    """Of two rows by the value of a key that tells them apart. Where neither way is better, neither wins."""
    places = place_of(made, names[0]), place_of(made, names[1])
    one, other = (made.rows[place] for place in places)
    found = [difference(*cells) for cells in zip(one.cells, other.cells, strict=True)]
    tested = [
        place
        for place, cells in enumerate(zip(one.cells, other.cells, strict=True))
        if found[place] is not None and all(map(enough, cells))
    ]
    p_values = [estimate.p_value for place in tested if (estimate := found[place]) is not None]
    corrected = dict(zip(tested, holm(p_values), strict=True))
    lines = []
    for place, column in enumerate(made.columns):
        cells = (one.cells[place], other.cells[place])
        if any(cell.mean is None for cell in cells):
            continue
        way = -1 if is_cost(column.metric) else direction(column.metric)
        gap = way * ((cells[0].mean or 0.0) - (cells[1].mean or 0.0))
        better = None if gap == 0 else int(gap < 0)
        lines.append(Line(column.metric, column.heading, cells, found[place], corrected.get(place), better))
    return Versus((names[0], names[1]), places, tuple(lines), (settings(made, one), settings(made, other)))


def settings(made: Table, row: Row) -> int:
    return sum(method(each) == method(row) for each in made.rows)


def method(row: Row) -> object:
    return row.runs[0].names["method"] if row.runs else None


def place_of(made: Table, name: str) -> int:
    known = {value_text(value): row for row in made.rows for value in row.keys}
    found = [place for place, row in enumerate(made.rows) if name in map(value_text, row.keys)]
    if len(found) != 1:
        how = f"no row has it{nearest(name, known)}" if not found else f"{len(found)} rows have it"
        raise UserError(f"report.versus={name}: {how}; name two rows by a value that one of each has")
    return found[0]


def to_markdown(made: Versus) -> str:
    rules = [":--", "--:", "--:", "--:", ":--", ":--"]
    return f"{pipe_table([made.header, rules, *made.texts()])}\n\n{made.note}\n"


def to_csv(made: Versus) -> str:
    """A line a metric: raw values to the last bit, and the identity and folder of every run behind either side."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    sides = [f"{what}_{name}" for name in made.names for what in ("mean", "values", "seeds", "runs", "folders")]
    writer.writerow(["metric", "difference", "low_95", "high_95", "p_holm", "better", *sides])
    for line in made.lines:
        gap = [line.found.mean, *line.found.interval] if line.found is not None else [None] * 3
        better = "" if line.better is None else made.names[line.better]
        behind = [text for cell in line.cells for text in (raw(cell.mean), *trail(cell.values, cell.runs))]
        writer.writerow([line.metric, *map(raw, [*gap, line.p_value]), better, *behind])
    return file.getvalue()
