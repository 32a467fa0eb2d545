"""Runs → the table of a paper, as data: rows by what varies, a cell a metric; and which runs may share one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from prefsweep.errors import UserError, nearest
from prefsweep.report.captions import caption, provenance
from prefsweep.report.cells import Cell, make_cell, mark_column, published_for
from prefsweep.report.completions import Completions, read_completions
from prefsweep.report.formatting import NOTHING, decimals_for, key_heading, sort_key, value_text
from prefsweep.report.metrics import METRICS, metric
from prefsweep.report.runs import NAMES, groups, input_identity, metric_names, records, setting_names, varying

# Settings of the stages that measure which may differ in a table: plumbing; a path, which names no content; whether the
# course of the training is known, and whether and of which model the frontier.
MAY_DIFFER = ("._target_", ".reads", ".path", ".course", ".frontier", ".frontier_of")
WEIGHTS = "the judge's own weights"
PROMPTS = "the prompts that were completed"


def comparable_sets(runs: pd.DataFrame, completions: Completions) -> list[pd.DataFrame]:
    """Split the runs into sets that may each make a table, in the order first seen.

    A run that left no completions, or lacks a stage, joins the first set that it does not contradict.
    """
    sets: list[tuple[dict[str, Any], list[int]]] = []
    for row, settings in enumerate(comparisons(runs, completions)):
        for common, members in sets:
            if all(common[key] == settings[key] for key in common.keys() & settings.keys()):
                common.update(settings)
                members.append(row)
                break
        else:
            sets.append((settings, [row]))
    return [runs.iloc[members] for _, members in sets]


def comparisons(runs: pd.DataFrame, completions: Completions) -> list[dict[str, Any]]:
    """Return what must be equal between runs, the judge, the decoding and the prompts, as far as each has it."""
    sections = ("judge.", *(f"stages.{stage}." for stage in sorted(set().union(*runs["judging"]))))
    keys = [key for key in setting_names(runs) if key.startswith(sections) and not key.endswith(MAY_DIFFER)]
    rows = records(runs[["dataset", "judge", *keys]])
    for row, run, about in zip(rows, records(runs[["stages", "inputs"]]), completions.of_runs(runs), strict=True):
        # What the judge says of test pairs: one identity, one judge, wherever its files lie.
        row |= {WEIGHTS: input_identity(run, "pairs"), PROMPTS: about.get("hash")}
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def reason(sets: Sequence[pd.DataFrame], completions: Completions) -> str:
    """Return what the sets differ in, the plainest first: `generate.temperature (0.7, 1)`."""
    values: dict[str, list[str]] = {}
    for members in sets:
        for key, value in comparisons(members.iloc[:1], completions)[0].items():
            values.setdefault(key, []).append(value_text(value))
    texts = {key: list(dict.fromkeys(of_sets)) for key, of_sets in values.items() if key != PROMPTS}
    differing = [f"{key_heading(key)} ({', '.join(of_sets)})" for key, of_sets in texts.items() if len(of_sets) > 1]
    return ", ".join(differing[:3]) or PROMPTS


@dataclass(frozen=True, eq=False)
class Row:
    keys: tuple[Any, ...]
    runs: pd.DataFrame
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        return ", ".join(map(value_text, self.keys)) or "all runs"

    @property
    def tally(self) -> str:
        """`3 of 3`, `2 of 3 (1 failed)`: the runs that count, and what became of those that did not finish."""
        others = Counter(status for status in self.runs["status"] if status != "finished")
        note = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
        return f"{self.runs['has_result'].sum()} of {len(self.runs)}" + (f" ({note})" if note else "")


@dataclass(frozen=True, eq=False)
class Table:
    """`has_published` says of each column of cells whether published numbers stand in a column beside it."""

    keys: tuple[str, ...]
    across: tuple[str, ...]
    rows: tuple[Row, ...]
    has_published: tuple[bool, ...]
    caption: str
    provenance: str

    @property
    def header(self) -> list[str]:
        headings = [*map(key_heading, self.keys)]
        for cell, is_published in zip(self.rows[0].cells, self.has_published, strict=True):
            headings += [cell.heading, *[f"{cell.heading} (published)"] * is_published]
        return [*headings, "runs"]

    @property
    def numbers(self) -> range:
        """The columns of `header` that hold numbers: not the keys, nor the tally of runs."""
        return range(len(self.keys), len(self.header) - 1)

    def lines(self, best: str = "{}", worse: str = "{}") -> list[list[str]]:
        """Return every row as text, under `header`, with the marks of its cells."""
        marks = {"best": best, "worse": worse}
        lines = []
        for row in self.rows:
            texts = [*map(value_text, row.keys)]
            for cell, is_published in zip(row.cells, self.has_published, strict=True):
                texts.append(marks.get(cell.mark or "", "{}").format(cell.text))
                texts += [cell.published.text(cell.decimals) if cell.published else NOTHING] * is_published
            lines.append([*texts, row.tally])
        return lines


def table(
    runs: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    across: Sequence[str] = (),
    published: Sequence[Mapping[str, Any]] = (),
    completions: Completions | None = None,
) -> Table:
    """Return a row for each group of runs that differ in the seed alone; `across` spreads a key over columns.

    `metrics` are columns; default: those well known. Runs that are not comparable are refused.
    """
    names = default_metrics(runs) if metrics is None else list(metrics)
    completions = read_completions(runs, names) if completions is None else completions
    sets = comparable_sets(runs, completions)
    if len(sets) > 1:
        raise UserError(
            f"table: these runs differ in {reason(sets, completions)} and share no table; name folders of runs with "
            "one judge, the same prompts and one decoding"
        )
    refuse_unknown(names, "metric", metric_names(runs))
    keys = row_keys(runs, rows, across)
    cells_by_row = filled(runs, keys, names, completions, across, published)
    columns = list(zip(*(row.cells for row in cells_by_row), strict=True))
    for column in columns:
        mark_column(column)
    has_published = tuple(any(cell.published for cell in column) for column in columns)
    text = caption(runs, [*keys, *across], [cell for column in columns for cell in column])
    return Table(keys, tuple(across), cells_by_row, has_published, text, provenance(runs, completions, names))


def filled(
    runs: pd.DataFrame,
    keys: Sequence[str],
    names: Sequence[str],
    completions: Completions,
    across: Sequence[str] = (),
    published: Sequence[Mapping[str, Any]] = (),
) -> tuple[Row, ...]:
    """Return a row for each value of the keys, with a cell for each metric and each value of the keys `across`."""
    columns = list(product(map(metric, names), [values for values, _ in sorted_groups(runs, across)]))
    rows = []
    for values, group in sorted_groups(runs, keys):
        parts, cells = dict(groups(group, across)), []
        for entry, of in columns:
            part = parts.get(of, group[:0])
            number = published_for(records(part[:1])[0], entry, published) if published and len(part) else None
            cells.append(make_cell(part, entry, completions, of, published=number))
        rows.append(Row(values, group, tuple(cells)))
    for column in zip(*(row.cells for row in rows), strict=True):
        decimals = decimals_for(cell.mean for cell in column)
        for cell in column:
            cell.decimals = decimals
    return tuple(rows)


def sorted_groups(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    return sorted(groups(runs, keys), key=lambda group: list(map(sort_key, group[0])))


def refuse_unknown(names: Sequence[str], what: str, known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no run has this {what}{nearest(name, known)}")


def row_keys(runs: pd.DataFrame, rows: Sequence[str] | None, across: Sequence[str]) -> tuple[str, ...]:
    """Return what tells rows apart. Keys that are named must leave nothing but the seed to differ within a row."""
    refuse_unknown([*(rows or ()), *across], "key", [*NAMES, *setting_names(runs)])
    if rows is None:
        return tuple(key for key in varying(runs) if key not in across) or (() if across else ("method",))
    for _, group in groups(runs, [*rows, *across]):
        if differing := varying(group):
            raise UserError(
                f"--rows {','.join(rows)}: would put runs that differ in {', '.join(differing[:3])} into one row; "
                "name that too"
            )
    return tuple(rows)


def default_metrics(runs: pd.DataFrame) -> list[str]:
    """Return the well-known metrics that the runs have; without any, all that they have but costs."""
    present = [name for name in metric_names(runs) if runs.loc[runs["has_result"], name].notna().any()]
    well_known = [name for name, entry in METRICS.items() if entry.default and name in present]
    return well_known or sorted(name for name in present if metric(name).kind != "cost")
