"""The course of trainings: score, KL and length of every state that they kept, as a table and a figure.

What over-optimisation looks like (Gao et al. 2023), and the frontier of the DPO paper as it was made, from one training
a row: the judge's score against KL, a point a state.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prefsweep.pipeline.files import write_text
from prefsweep.report.captions import INTERVALS, WILSON, judge_text
from prefsweep.report.cells import Cell, common_prompts, interval_of
from prefsweep.report.completions import Prompts
from prefsweep.report.curves import MOST_NAMED, QUALITY
from prefsweep.report.figures import KINDS, draw_frontiers, draw_interval, kl_axis
from prefsweep.report.formatting import decimals_for
from prefsweep.report.metrics import metric
from prefsweep.report.runs import Run, input_identity, records, stage_rows
from prefsweep.report.style import STYLE, colour, label, marker, new_figure, panels_of, save
from prefsweep.report.table import Row, Table
from prefsweep.report.writers import to_csv, to_markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = "course.jsonl"  # which the stage behind a target's input `course` left
METRICS = (QUALITY, "kl/base", "kl/start", "text/length", "text/ended", "judge/well_formed")
NOTE = "Point: a state that was kept, mean over seeds; bar: its 95% interval. Step 0: the start. One colour a row."
States = Mapping[str, Mapping[int, Run]]  # by a run's identity and by step


def write_course(table: Table, folder: Path, suffix: str) -> list[Path]:
    """Write table and figure of the course of the table's runs; return the files, none where no run has a course."""
    course = course_table(table)
    if course is None:
        return []
    import matplotlib as mpl

    texts = {folder / f"course{suffix}.{kind}": write(course) for kind, write in (("md", to_markdown), ("csv", to_csv))}
    for path, text in texts.items():
        write_text(path, text)
    figures = [folder / f"course{suffix}.{kind}" for kind in KINDS]
    with mpl.rc_context(STYLE):
        save(draw_course(table, course), NOTE, figures)
    return [*texts, *figures]


def course_table(table: Table) -> Table | None:
    """Return the table's rows, each once for every step of which a state was judged; None where none was."""
    runs = [run for row in table.rows for run in records(row.runs) if run["has_result"]]
    states: States = {
        run["identity"]: {row["step"]: row for row in stage_rows(run, run["inputs"].get("course"), FILE)}
        for run in runs
    }
    measured = {name for by_step in states.values() for state in by_step.values() for name in state}
    names = [name for name in METRICS if name in measured]
    rows = tuple(at_step for row in table.rows for at_step in rows_by_step(row, states, names))
    if not rows:
        return None
    for column in zip(*(row.cells for row in rows), strict=True):
        decimals = decimals_for(cell.mean for cell in column)
        for cell in column:
            cell.decimals = decimals
    frame = pd.concat([row.runs for row in rows])
    return Table((*table.keys, "step"), (), rows, (False,) * len(names), caption(rows), f"{judge_text(frame)}.")


def rows_by_step(row: Row, states: States, names: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each step, of the runs that kept a state then."""
    identities = row.runs["identity"]
    for step in sorted({step for identity in identities for step in states.get(identity, ())}):
        runs = row.runs[[step in states.get(identity, ()) for identity in identities]]
        at_step = [states[identity][step] for identity in runs["identity"]]
        yield Row((*row.keys, step), runs, tuple(make_cell(runs, at_step, name) for name in names))


def make_cell(runs: pd.DataFrame, states: Sequence[Run], name: str) -> Cell:
    """Return the cell of one metric over seeds and prompts, from the states of several runs after one step."""
    has_metric = [name in state for state in states]
    having, states = runs[has_metric], [state for state in states if name in state]
    values, entry = tuple(state[name] for state in states), metric(name)
    prompts = common_prompts([prompts_of(state["by_group"], name) for state in states], values)
    interval, over = interval_of(values, prompts, entry.kind == "rate")
    return Cell(entry, (), having, values, len(runs), prompts, fmean(values) if values else None, interval, over)


def prompts_of(by_group: Mapping[str, Any], name: str) -> Prompts:
    """Return a state's completions by prompt group, as those of a table's cell."""
    sizes = np.array(by_group["sizes"], dtype=float)
    return Prompts(np.array(by_group["groups"]), np.array(by_group["means"][name]), sizes)


def caption(rows: Sequence[Row]) -> str:
    """Return what a row is, and what every ± means."""
    cells = [cell for row in rows for cell in row.cells if cell.mean is not None]
    counts = sorted({int(cell.prompts.sizes.sum()) for cell in cells if cell.prompts is not None})
    sentences = [
        "every state that a training kept, and its result; step 0 is the policy that the training started from",
        f"{' or '.join(map(str, counts))} completions a state",
        *(text for over, text in INTERVALS.items() if any(cell.over == over for cell in cells)),
        *([WILSON] if any(cell.is_rate for cell in cells) else []),
    ]
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences)


def draw_course(table: Table, course: Table) -> "Figure":
    """Draw the judge's score against KL, and by the steps of each stage that ends a method, which are its own."""
    runs = [run for row in course.rows for run in records(row.runs)]
    divergence, start = kl_axis(runs)
    has_kl = any(cell.metric.name == divergence for cell in course.rows[0].cells)
    stages = list(dict.fromkeys(run["result"] for run in runs))
    figure = new_figure(1.0 + 2.2 * ((has_kl + len(stages) + 1) // 2))
    panels = panels_of(figure, has_kl + len(stages), 2)
    titles = [f"Against {metric(divergence).heading}"] * has_kl + [f"Course of {stage}" for stage in stages]
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, loc="left")
        axes.set_xlabel("step")
        axes.set_ylabel(metric(QUALITY).heading)
        axes.margins(0.06)
    if has_kl:
        panels[0].set_xlabel(metric(divergence).heading)
        draw_frontiers(panels[0], [run for run in runs if start is None or input_identity(run, "start") == start])
    names: dict[str, Any] = {}
    for index, row in enumerate(table.rows):
        if points := [point for point in course.rows if point.keys[:-1] == row.keys]:
            by_step = panels[has_kl + stages.index(points[0].runs["result"].iloc[0])]
            names[label(table, row)] = draw_line(by_step, index, points)
            if has_kl:
                draw_line(panels[0], index, points, divergence)
    handles = list(names.values())[:MOST_NAMED]
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(handles)), frameon=False, fontsize=7)
    return figure


def draw_line(axes: "Axes", index: int, points: Sequence[Row], divergence: str | None = None) -> Any:
    """Draw the states of a row in the order of their steps, over these or over their KL; return the line."""
    by_name = [{"step": point.keys[-1], **{cell.metric.name: cell for cell in point.cells}} for point in points]
    x = [cells["step"] if divergence is None else cells[divergence].mean for cells in by_name]
    y: list[Cell] = [cells[QUALITY] for cells in by_name]
    (line,) = axes.plot(
        x, [cell.mean or 0.0 for cell in y], f"-{marker(index)}", color=colour(index), linewidth=0.9, markersize=3.5
    )
    for at, cell in zip(x, y, strict=True):
        draw_interval(axes, at, cell.interval, colour(index))
    return line
