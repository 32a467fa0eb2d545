"""Which differences between the rows of a column are more than noise: paired over prompts and seeds, Holm-corrected.

Five seeds are the least for which a test is made: with fewer, a p-value says more of the luck of three draws.
"""

from collections.abc import Sequence

import numpy as np

from prefsweep.report.cell import Cell, Marks
from prefsweep.report.columns import direction
from prefsweep.report.statistics import Estimate, crossed, holm, over_seeds

FEWEST_SEEDS = 5
LEVEL = 0.05


def marks(cells: Sequence[Cell], metric: str) -> Marks:
    """Of a column. The family is every pair of its rows, whichever turns out to be the best one.

    Only the best row's differences are computed; of the others it is assumed that they are less significant, which
    corrects these more strictly than Holm asks.
    """
    sign = direction(metric)
    entered = [place for place, cell in enumerate(cells) if cell.mean is not None and enough(cell)]
    if not sign or len(entered) < 2:
        return Marks()
    means = {place: sign * (cells[place].mean or 0.0) for place in entered}
    best = max(entered, key=lambda place: means[place])
    others = [place for place in entered if place != best]
    found = [difference(cells[best], cells[place]) for place in others]
    p_values = [estimate.p_value if estimate is not None else 1.0 for estimate in found]
    adjusted = holm(p_values, len(entered) * (len(entered) - 1) // 2)
    worse = frozenset(place for place, p_value in zip(others, adjusted, strict=True) if p_value < LEVEL)
    with_result = sum(cell.mean is not None for cell in cells)
    return Marks(best if len(worse) == with_result - 1 else None, worse, tested=True)


def enough(cell: Cell) -> bool:
    return len(cell.runs) >= FEWEST_SEEDS or cell.is_seedless


def difference(one: Cell, other: Cell) -> Estimate | None:
    """Of two rows, one − other: over seeds and prompts where both answered the same prompts, else over seeds alone.

    Runs are paired by seed; a row that no seed changes stands beside each seed of the other.
    """
    pairs = paired_runs(one, other)
    return paired(one, other, pairs) if pairs else None


def difference_of_runs(one: Cell, other: Cell) -> Estimate | None:
    """Of two single runs, whatever their seeds: over prompts alone."""
    return paired(one, other, [(0, 0)]) if one.runs and other.runs else None


def paired(one: Cell, other: Cell, pairs: Sequence[tuple[int, int]]) -> Estimate | None:
    a, b = one.prompts, other.prompts
    if a is not None and b is not None and a.groups == b.groups and np.array_equal(a.sizes, b.sizes):
        return crossed(np.stack([a.means[i] - b.means[j] for i, j in pairs]), a.sizes)
    return over_seeds([one.values[i] - other.values[j] for i, j in pairs])


def paired_runs(one: Cell, other: Cell) -> list[tuple[int, int]]:
    if one.is_seedless and one.runs:
        return [(0, j) for j in range(len(other.runs))]
    if other.is_seedless and other.runs:
        return [(i, 0) for i in range(len(one.runs))]
    theirs = {run.seed: j for j, run in enumerate(other.runs)}
    return [(i, theirs[run.seed]) for i, run in enumerate(one.runs) if run.seed in theirs]
