"""report.html: one page a sweep that asks nothing of the network; every number leads to its runs."""

import base64
import json
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from prefsweep.pipeline.files import read_jsonl
from prefsweep.report.cells import Cell
from prefsweep.report.completions import SAMPLES
from prefsweep.report.formatting import number, value_text
from prefsweep.report.runs import Run, metric_names, records, stage_file
from prefsweep.report.table import Row, Table
from prefsweep.report.versus import Versus

PROMPTS = 12  # whose completions are shown
ROWS = 8  # of the table, side by side
LONGEST = 1200  # characters of a prompt or a completion
LAST_LINES = 12  # of a failed job's log
LOG = "job.log"


def to_html(
    tables: Sequence[Table],
    title: str,
    folder: Path,
    figures: Sequence[Path] = (),
    command: str = "",
    comparisons: Sequence[Versus | None] = (),
) -> str:
    """Render the page that will lie in `folder`: links to runs are relative to it. `comparisons` has one a table."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters |= {"source": source_of, "value_text": value_text}
    rows = [(f"t{at}-r{index}", row) for at, table in enumerate(tables) for index, row in enumerate(table.rows)]
    groups: list[dict[str, Any]] = [
        {"anchor": anchor, "name": row.name, "runs": runs_of(row, folder)} for anchor, row in rows
    ]
    runs = [run for group in groups for run in group["runs"]]
    page = environment.get_template("page.html").render(
        title=title,
        tally=f"{sum(run['status'] == 'finished' for run in runs)} of {len(runs)} runs finished",
        tables=tables,
        comparisons=[(at, versus) for at, versus in enumerate(comparisons) if versus is not None],
        failures=[run for run in runs if run["status"] != "finished"],
        figures=[(path.stem, base64.b64encode(path.read_bytes()).decode()) for path in figures],
        samples=side_by_side([row for _, row in rows]),
        groups=groups,
        command=command,
        versions=versions(rows[0][1]) if rows else "",
    )
    return "\n".join(line for line in page.splitlines() if line.strip()) + "\n"


def source_of(cell: Cell) -> str:
    """A line a run behind a number: its value, identity and folder."""
    lines = zip(cell.values, cell.runs["identity"], cell.runs["folder"], strict=True)
    return "\n".join(f"{value!r}  {identity}  {folder}" for value, identity, folder in lines)


def runs_of(row: Row, folder: Path) -> list[dict[str, Any]]:
    """What the page says of each run of a row."""
    names, described = metric_names(row.runs), []
    for run in records(row.runs):
        details = {name: run[name] for name in ("identity", "stages", "overrides")} | {"folder": str(run["folder"])}
        details["metrics"] = {name: run[name] for name in names if run[name] == run[name]}
        href = Path(os.path.relpath(run["folder"].resolve() / "run.json", folder.resolve())).as_posix()
        texts = {"href": href, "details": json.dumps(details, indent=1, ensure_ascii=False)}
        texts["last_lines"] = "" if run["status"] == "finished" else last_lines(run)
        described.append(texts | {name: run[name] for name in ("name", "status", "seed")})
    return described


def last_lines(run: Run) -> str:
    """The end of a run's error and of its log."""
    log = run["folder"] / LOG
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
    error = str(run["error"] or "").strip().splitlines()[-LAST_LINES:]
    return "\n".join([*error, *(["", f"{LOG}:", *lines] if lines else [])]) or "nothing was recorded"


def side_by_side(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The first prompts, with the completions by each row's first run that left any."""
    prompts: dict[str, dict[str, Any]] = {}
    for row in rows[:ROWS]:
        for sample in islice(first_samples(row), PROMPTS * 64):
            name = str(sample["id"])
            if sample.get("sample", 0) or (name not in prompts and len(prompts) == PROMPTS):
                continue
            prompt = prompts.setdefault(name, {"prompt": cut(sample["prompt"]), "completions": []})
            score = (sample.get("scores") or {}).get("score")
            score = number(score, 3) if isinstance(score, int | float) else ""
            prompt["completions"].append({"row": row.name, "score": score, "text": cut(sample["completion"])})
    return list(prompts.values())


def first_samples(row: Row) -> Any:
    runs = records(row.runs[row.runs["has_result"]])
    path = next((path for run in runs if (path := stage_file(run, run["target"], SAMPLES))), None)
    return read_jsonl(path) if path else ()


def cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def versions(row: Row) -> str:
    """Of the code and the libraries behind the row's first run that left a record."""
    for run in records(row.runs[row.runs["has_result"]]):
        path = stage_file(run, run["target"], "record.json")
        if path is not None:
            record = json.loads(path.read_text())
            libraries = [f"{name} {version}" for name, version in (record.get("versions") or {}).items()]
            return ", ".join([f"commit {record.get('commit') or 'unknown'}", *libraries])
    return "no run left a record of versions"
