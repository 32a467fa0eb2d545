"""report.html: one page a sweep that asks nothing of the network; every cell leads to its runs."""

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from prefsweep.report.cell import Cell
from prefsweep.report.columns import number, value_text
from prefsweep.report.completions import read_rows, samples_of, stage_folder
from prefsweep.report.frame import Run
from prefsweep.report.table import Row, Table
from prefsweep.report.versus import Versus

PROMPTS = 12  # whose answers are shown
ROWS = 8  # of the table, side by side
LONGEST = 1200  # characters of a prompt or an answer
LAST_LINES = 12  # of a failed job's log
LOG = "job.log"


def to_html(
    tables: Sequence[Table],
    title: str,
    folder: Path,
    figures: Sequence[Path] = (),
    command: str = "",
    beside: Sequence[Versus | None] = (),
) -> str:
    """`folder` is where the page will lie: links to runs are relative to it. `beside` has one or none a table."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=False)
    rows = [(f"t{at}-r{place}", row) for at, one in enumerate(tables) for place, row in enumerate(one.rows)]
    runs = [run for _, row in rows for run in row.runs]
    failures = [failure(run) for run in runs if run.status != "finished"]
    samples = side_by_side([row for _, row in rows])
    finished = sum(run.status == "finished" for run in runs)
    page = environment.get_template("page.html").render(
        title=title,
        tally=f"{finished} of {len(runs)} runs finished",
        tables=[shown(one, f"t{at}") for at, one in enumerate(tables)],
        beside=[against(one, f"t{at}") for at, one in enumerate(beside) if one is not None],
        failures=failures,
        figures=[{"name": p.stem, "data": base64.b64encode(p.read_bytes()).decode()} for p in figures],
        samples=samples,
        groups=[
            {"anchor": anchor, "name": row_name(row), "runs": [described(run, folder) for run in row.runs]}
            for anchor, row in rows
        ],
        sections=sections([one for one in beside if one is not None], failures, figures, samples),
        command=command,
        versions=versions(runs),
    )
    return "\n".join(line for line in page.splitlines() if line.strip()) + "\n"


def sections(
    beside: Sequence[Any], failures: Sequence[Any], figures: Sequence[Any], samples: Sequence[Any]
) -> list[tuple[str, str]]:
    there = {"versus": beside, "failures": failures, "figures": figures, "samples": samples}
    there |= {"runs": [True], "command": [True]}
    names = {"versus": "Two rows", "failures": "Not finished", "figures": "Figures", "samples": "Samples"}
    names["runs"] = "Runs"
    return [("table1", "Table"), *((key, names.get(key, "Command")) for key, found in there.items() if found)]


def shown(one: Table, prefix: str) -> dict[str, Any]:
    """Cells with what they are sorted by and the folders they come from."""
    first, last = len(one.keys), len(one.header) - 1
    lines = []
    for place, (row, texts) in enumerate(zip(one.rows, one.shown(), strict=True)):
        behind = list(cells_behind(one, row))
        cells = []
        for at, text in enumerate(texts):
            is_number = first <= at < last
            value, trail = behind[at - first] if is_number else (sorted_by(row, at, first), "")
            marks = {"is_best": text.is_best, "is_worse": text.is_worse}
            cells.append({"text": text.text, "is_number": is_number, "value": value, "trail": trail, **marks})
        lines.append({"anchor": f"{prefix}-r{place}", "cells": cells})
    return {
        "header": one.header,
        "numbers": list(range(first, last)),
        "rows": lines,
        "caption": one.caption,
        "provenance": one.provenance,
    }


def against(one: Versus, prefix: str) -> dict[str, Any]:
    """Two rows against each other: their own numbers lead to the runs that they come from."""
    lines = []
    for line, texts in zip(one.lines, one.texts(), strict=True):
        cells = [{"text": text, "anchor": "", "trail": ""} for text in texts]
        for cell, place, behind in zip(cells[1:3], one.places, line.cells, strict=True):
            cell |= {"anchor": f"{prefix}-r{place}", "trail": behind_cell(behind)}
        lines.append(cells)
    return {"header": one.header, "rows": lines, "note": one.note}


def behind_cell(cell: Cell) -> str:
    return "\n".join(f"{run.metrics[cell.metric]!r}  {run.identity}  {run.folder}" for run in cell.runs)


def cells_behind(one: Table, row: Row) -> Iterator[tuple[str, str]]:
    for place, cell in enumerate(row.cells):
        yield ("" if cell.mean is None else repr(cell.mean)), behind_cell(cell)
        if one.is_published(place):
            found = cell.published
            yield ("", "") if found is None else (repr(found.value), found.source)


def sorted_by(row: Row, at: int, keys: int) -> str:
    if at >= keys:
        return str(row.counted)
    return "" if row.keys[at] is None else str(row.keys[at])


def row_name(row: Row) -> str:
    return ", ".join(value_text(key) for key in row.keys) or "all runs"


def described(run: Run, folder: Path) -> dict[str, Any]:
    details = {"identity": run.identity, "folder": str(run.folder), "metrics": run.metrics, "stages": run.stages}
    overrides = {"overrides": list(run.overrides)} if run.overrides else {}
    return {
        "name": run.name,
        "status": run.status,
        "seed": run.seed,
        "href": Path(os.path.relpath(run.folder.resolve() / "run.json", folder.resolve())).as_posix(),
        "details": json.dumps(details | overrides, indent=1, ensure_ascii=False),
    }


def failure(run: Run) -> dict[str, str]:
    """What it said last: its error and the end of its log."""
    log = run.folder / LOG
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
    said = [*((run.error or "").strip().splitlines()[-LAST_LINES:]), *(["", LOG + ":", *lines] if lines else [])]
    return {"name": run.name, "status": run.status, "lines": "\n".join(said) or "nothing was recorded"}


def side_by_side(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The first prompts with the answer of each row's first run that left any."""
    prompts: dict[str, dict[str, Any]] = {}
    for row in rows[:ROWS]:
        path = next((found for run in row.runs if run.has_result and (found := samples_of(run))), None)
        for sample in islice(read_rows(path), PROMPTS * 64) if path else ():
            if sample.get("sample", 0) or (str(sample["id"]) not in prompts and len(prompts) == PROMPTS):
                continue
            entry = prompts.setdefault(str(sample["id"]), {"prompt": cut(sample["prompt"]), "completions": []})
            entry["completions"].append(
                {"row": row_name(row), "score": scored(sample), "text": cut(sample["completion"])}
            )
    return list(prompts.values())


def scored(sample: Mapping[str, Any]) -> str:
    scores = sample.get("scores") or {}
    return number(scores["score"], 3) if isinstance(scores.get("score"), int | float) else ""


def cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def versions(runs: Sequence[Run]) -> str:
    """Of the libraries behind the first run that left a record."""
    for run in runs:
        folder = stage_folder(run, "evaluate") if run.has_result else None
        if folder is not None and (folder / "record.json").is_file():
            read = json.loads((folder / "record.json").read_text())
            named = [f"{name} {version}" for name, version in (read.get("versions") or {}).items()]
            return ", ".join([f"commit {read.get('commit') or 'unknown'}", *named])
    return "no run left a record of versions"
