"""The course of trainings: score, KL and length of every state that they kept, as a table and as points to draw.

What over-optimisation looks like (Gao et al. 2023), and the frontier of the DPO paper as it was made, from one training
a row: the judge's score against KL, a point a state.
"""

from collections.abc import Iterator
from math import nan

import pandas as pd

from prefsweep.report.captions import joined, judge_text, uncertainty
from prefsweep.report.completions import COUNT, Completions
from prefsweep.report.curves import QUALITY, Point
from prefsweep.report.metrics import metric
from prefsweep.report.runs import records, stage_rows
from prefsweep.report.table import Table, filled

FILE = "course.jsonl"  # which the stage behind a target's input `course` left
METRICS = (QUALITY, "kl/base", "kl/start", "text/length", "text/ended", "judge/well_formed")


def course_table(table: Table) -> Table | None:
    """Return the table's rows, each once for every step of which a state was judged; None where none was."""
    runs = pd.concat([row.runs for row in table.rows])
    states, by_group = [], []
    for run in records(runs[runs["has_result"]]):
        for state in stage_rows(run, run["inputs"].get("course"), FILE):
            identity, groups = f"{run['identity']} {state['step']}", state["by_group"]
            states.append({**run, **dict.fromkeys(METRICS, nan), **state, "target_identity": identity})
            frame = pd.DataFrame(groups["means"]).assign(stage=identity, group=groups["groups"])
            by_group.append(frame.assign(**{name + COUNT: groups["sizes"] for name in groups["means"]}))
    if not states:
        return None
    frame = pd.DataFrame(states, dtype=object)  # in which a setting that a run lacks stays None
    names = [name for name in METRICS if frame[name].notna().any()]
    rows = filled(frame, (*table.keys, "step"), names, Completions(pd.concat(by_group, ignore_index=True)))
    cells = [cell for row in rows for cell in row.cells]
    counts = sorted({int(cell.prompts.sizes.sum()) for cell in cells if cell.prompts is not None})
    caption = joined(
        "every state that a training kept, and its result; step 0 is the policy that the training started from",
        f"{' or '.join(map(str, counts))} completions a state",
        *uncertainty(cells),
    )
    return Table((*table.keys, "step"), (), rows, (False,) * len(names), caption, f"{judge_text(frame)}.")


def course_points(table: Table, course: Table, divergence: str) -> Iterator[Point]:
    """Yield the judge's score of every state over its KL, and over its step in the stage that ends the method."""
    indices, heading = {row.keys: index for index, row in enumerate(table.rows)}, metric(divergence).heading
    for row in course.rows:
        *keys, step = row.keys
        cells, index = {cell.metric.name: cell for cell in row.cells}, indices[tuple(keys)]
        low, high = cells[QUALITY].interval or (nan, nan)
        point = {"row": index, "run": index, "line": "-", "y": cells[QUALITY].mean, "low": low, "high": high}
        if divergence in cells:
            yield {**point, "panel": f"Against {heading}", "xlabel": heading, "x": cells[divergence].mean}
        yield {**point, "panel": f"Course of {row.runs['result'].iloc[0]}", "xlabel": "step", "x": step}
