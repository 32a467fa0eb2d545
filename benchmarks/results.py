"""Copy what a sweep ended in to results/NAME, with how it was made, to be committed.

    python benchmarks/results.py multirun_sweeps/NAME

No prompt is copied: those of a dataset without a licence may not be. `samples.md` has completions alone.
"""

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import ROOT, hardware
from prefsweep.pipeline.files import write_json, write_text
from prefsweep.pipeline.store import RECORD
from prefsweep.report.completions import first_samples
from prefsweep.report.runs import Run, read_runs, records, stage_file

TABLES = ("table.md", "table.csv", "versus.md", "course.md")
SAMPLES = 4  # completions of each method's first seed


def copy(sweep: Path) -> Path:
    """Return the folder to which the sweep's tables and figures were copied."""
    folder = ROOT / "results" / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for path in sorted(sweep.iterdir()):
        if path.name in TABLES or path.suffix == ".png":
            shutil.copy(path, folder)
    runs = records(read_runs([sweep]))
    write_text(folder / "samples.md", samples(runs))
    write_json(folder / "made.json", made(sweep, runs))
    return folder


def made(sweep: Path, runs: list[Run]) -> dict[str, Any]:
    """Return the command, the commit and the hardware of a sweep, and how many runs finished."""
    manifest = json.loads((sweep / "sweep.json").read_text())
    return {
        "command": manifest["command"],
        "commits": sorted({commit_of(run) for run in runs if run["has_result"]}),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware("cpu"),
        "finished": sum(run["has_result"] for run in runs),
    }


def commit_of(run: Run) -> str:
    """Return the commit of the code that evaluated a run."""
    path = stage_file(run, run["target"], RECORD)
    return json.loads(path.read_text())["commit"] or "unknown" if path else "unknown"


def samples(runs: list[Run]) -> str:
    """Return completions of the same prompts by the first finished run of each method, and what the judge gave them."""
    lines = ["| method | judge | completion |", "| :-- | --: | :-- |"]
    first = {run["method"]: run for run in reversed(runs) if run["has_result"]}
    for method, run in sorted(first.items()):
        for row in list(first_samples(run).values())[:SAMPLES]:
            text = " ".join(row["completion"].split()).replace("|", "\\|")
            lines.append(f"| {method} | {row['scores']['score']:.2f} | … {text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(copy(Path(sys.argv[1])))
