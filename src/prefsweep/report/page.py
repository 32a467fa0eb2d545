"""report.html: one page a sweep that asks nothing of the network; every number leads to its runs."""

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path

from prefsweep.pipeline.store import RECORD
from prefsweep.report.cells import Cell
from prefsweep.report.completions import first_samples
from prefsweep.report.formatting import number, value_text
from prefsweep.report.runs import Run, metric_names, records, stage_file
from prefsweep.report.table import Row, Table
from prefsweep.report.versus import Versus

PROMPTS = 12  # whose completions are shown
ROWS = 8  # of the table, side by side
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
    environment.filters |= {"source": source_of, "value_text": value_text, "score": lambda score: number(score, 3)}
    rows = {f"t{at}-r{index}": row for at, table in enumerate(tables) for index, row in enumerate(table.rows)}
    groups = [(anchor, row.name, described(row, folder)) for anchor, row in rows.items()]
    runs = [run for _, _, of_row in groups for run in of_row]
    page = environment.get_template("page.html").render(
        title=title,
        tally=f"{sum(run['status'] == 'finished' for run in runs)} of {len(runs)} runs finished",
        tables=tables,
        comparisons=[(at, versus) for at, versus in enumerate(comparisons) if versus is not None],
        failures=[run for run in runs if run["status"] != "finished"],
        figures=[(path.stem, base64.b64encode(path.read_bytes()).decode()) for path in figures],
        samples=side_by_side(list(rows.values())[:ROWS]),
        groups=groups,
        command=command,
        versions=versions(runs),
    )
    return "\n".join(line for line in page.splitlines() if line.strip()) + "\n"


def source_of(cell: Cell) -> str:
    """Return a line a run behind a number: its value, identity and folder."""
    lines = zip(cell.values, cell.runs["identity"], cell.runs["folder"], strict=True)
    return "\n".join(f"{value!r}  {identity}  {folder}" for value, identity, folder in lines)


def described(row: Row, folder: Path) -> list[Run]:
    """Return the row's runs with what the page says of each: `href`, `details` and `last_lines`."""
    names, runs = metric_names(row.runs), records(row.runs)
    for run in runs:
        details = {name: run[name] for name in ("identity", "stages", "overrides")} | {"folder": str(run["folder"])}
        details["metrics"] = {name: run[name] for name in names if run[name] == run[name]}
        run["href"] = Path(os.path.relpath(run["folder"].resolve() / "run.json", folder.resolve())).as_posix()
        run["details"] = json.dumps(details, indent=1, ensure_ascii=False)
        log = run["folder"] / LOG
        lines = ["", f"{LOG}:", *log.read_text(errors="replace").splitlines()[-LAST_LINES:]] if log.is_file() else []
        error = (run["error"] or "nothing was recorded").strip().splitlines()[-LAST_LINES:]
        run["last_lines"] = "\n".join([*error, *lines])
    return runs


def side_by_side(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, Run]]]]:
    """Return the first prompts, each with the name of every row and what its first run that left any completed."""
    by_row = [(row.name, next(filter(None, map(first_samples, records(row.runs))), {})) for row in rows]
    prompts = {identity: sample["prompt"] for _, samples in by_row for identity, sample in samples.items()}
    return [
        (prompt, [(name, samples[identity]) for name, samples in by_row if identity in samples])
        for identity, prompt in list(prompts.items())[:PROMPTS]
    ]


def versions(runs: Sequence[Run]) -> str:
    """Return the versions of the code and the libraries behind the first run that left a record."""
    path = next(filter(None, (stage_file(run, run["target"], RECORD) for run in runs)), None)
    if path is None:
        return "no run left a record of versions"
    record = json.loads(path.read_text())
    return ", ".join([f"commit {record['commit'] or 'unknown'}", *map(" ".join, record["versions"].items())])
