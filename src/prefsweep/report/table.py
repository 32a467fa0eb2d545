"""Runs → the table of a paper, as data: rows by what varies, a cell a metric; and which runs may share one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from prefsweep.errors import UserError, nearest
from prefsweep.report.captions import caption, provenance
from prefsweep.report.cells import Cell, compared, make_cell, published_for
from prefsweep.report.completions import Completions, read_completions
from prefsweep.report.formatting import NOTHING, key_heading, sort_key, value_text
from prefsweep.report.metrics import METRICS, metric
from prefsweep.report.runs import (
    NAMES,
    following_seed,
    groups,
    input_identity,
    metric_names,
    records,
    setting_names,
    varying,
)

# Settings of the stages that measure which may differ in a table: plumbing; a path, which names no content; and whether
# and of which model the frontier is known.
NO_MATTER = ("._target_", ".reads", ".path", ".frontier", ".frontier_of")
WEIGHTS = "the judge's own weights"


def comparable_sets(runs: pd.DataFrame, completions: Completions) -> list[pd.DataFrame]:
    """Split the runs into sets that may each make a table, in the order first seen.

    A run that says nothing of itself (killed before it wrote its config) or that left no completions joins the first
    set that it does not contradict.
    """
    sets: list[tuple[dict[str, Any], list[int]]] = []
    for row, settings in enumerate(comparisons(runs, completions)):
        for known, members in sets:
            if all(known[key] == settings[key] for key in known.keys() & settings.keys()):
                known.update(settings)
                members.append(row)
                break
        else:
            sets.append((settings, [row]))
    return [runs.iloc[members] for _, members in sets]


def comparisons(runs: pd.DataFrame, completions: Completions) -> list[dict[str, Any]]:
    """Return what must be equal between runs, the judge, the prompts and the decoding, as far as each has it."""
    compared = ("judge.", *(f"stages.{stage}." for stage in sorted(set().union(*runs["judging"]))))
    keys = [key for key in setting_names(runs) if key.startswith(compared) and not key.endswith(NO_MATTER)]
    rows = runs[["dataset", "judge", *keys]].to_dict("records")
    for row, run, known in zip(rows, records(runs), completions.known(runs), strict=True):
        # The judge's answers about test pairs: one identity, one judge, wherever its files lie.
        row |= {WEIGHTS: input_identity(run, "pairs"), "prompts": known.get("hash")}
    return [{str(key): value for key, value in row.items() if value is not None} for row in rows]


def reason(sets: Sequence[pd.DataFrame], completions: Completions) -> str:
    """`generate.temperature (0.7, 1)`: what the sets differ in, the plainest first."""
    values: dict[str, dict[str, None]] = {}
    for members in sets:
        for key, value in comparisons(members.iloc[:1], completions)[0].items():
            values.setdefault(key, {})[value_text(value)] = None
    values.pop("prompts", None)
    differing = [f"{key_heading(key)} ({', '.join(texts)})" for key, texts in values.items() if len(texts) > 1]
    return ", ".join(differing[:3]) or "the prompts that were completed"


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
        others = Counter(self.runs.loc[self.runs["status"] != "finished", "status"])
        note = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
        return f"{self.runs['has_result'].sum()} of {len(self.runs)}" + (f" ({note})" if note else "")


@dataclass(frozen=True, eq=False)
class Table:
    keys: tuple[str, ...]
    across: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: str
    provenance: str

    @cached_property
    def has_published(self) -> list[bool]:
        """Whether a column has published numbers, which stand in a column of their own beside it."""
        columns = zip(*(row.cells for row in self.rows), strict=True)
        return [any(cell.published is not None for cell in column) for column in columns]

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
        """Every row as text, under `header`, with the marks of its cells."""
        lines = []
        for row in self.rows:
            texts = [*map(value_text, row.keys)]
            for cell, is_published in zip(row.cells, self.has_published, strict=True):
                texts.append((best if cell.is_best else worse if cell.is_worse else "{}").format(cell.text))
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
    """A row for each group of runs that differ in the seed alone; `across` spreads the values of a key over columns.

    `metrics` are columns; default: those well known. Runs that are not comparable are refused.
    """
    completions = read_completions(runs) if completions is None else completions
    sets = comparable_sets(runs, completions)
    if len(sets) > 1:
        raise UserError(
            f"table: these runs differ in {reason(sets, completions)} and share no table; name folders of runs with "
            "one judge, the same prompts and one decoding"
        )
    chosen = default_metrics(runs) if metrics is None else list(metrics)
    refuse_unknown(chosen, "metric", metric_names(runs))
    keys = row_keys(runs, rows, across)
    by_row = sorted(groups(runs, keys), key=lambda group: list(map(sort_key, group[0])))
    spread = sorted((values for values, _ in groups(runs, across)), key=lambda values: list(map(sort_key, values)))
    seeds = following_seed(runs)

    def make_cells(group: pd.DataFrame) -> dict[tuple[str, tuple[Any, ...]], Cell]:
        cells = {}
        for values in spread:
            part = group
            for key, value in zip(across, values, strict=True):
                part = part[[setting == value for setting in part[key]]]
            is_seedless = bool(seeds) and not part[seeds].notna().any(axis=None)
            first = records(part.iloc[:1])[0] if published and len(part) else {}
            for entry in map(metric, chosen):
                number = published_for(first, entry, published) if first else None
                rest = {"across": values, "published": number, "is_seedless": is_seedless}
                cells[entry.name, values] = make_cell(part, entry, completions, **rest)
        return cells

    unmarked = [make_cells(group) for _, group in by_row]
    columns = [compared([of_row[name, values] for of_row in unmarked]) for name in chosen for values in spread]
    cells = list(zip(*columns, strict=True)) or [()] * len(by_row)
    result = tuple(Row(values, group, of_row) for (values, group), of_row in zip(by_row, cells, strict=True))
    text = caption(runs, [*keys, *across], [cell for column in columns for cell in column])
    return Table(keys, tuple(across), result, text, provenance(runs, completions, chosen))


def refuse_unknown(names: Sequence[str], what: str, known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no run has this {what}{nearest(name, known)}")


def row_keys(runs: pd.DataFrame, rows: Sequence[str] | None, across: Sequence[str]) -> tuple[str, ...]:
    """What tells rows apart. Keys that are named must leave nothing but the seed to differ within a row."""
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
    """The well-known metrics that the runs have; without any, all that they have but costs."""
    present = [name for name in metric_names(runs) if runs.loc[runs["has_result"], name].notna().any()]
    well_known = [name for name, entry in METRICS.items() if entry.default and name in present]
    return well_known or sorted(name for name in present if metric(name).kind != "cost")
