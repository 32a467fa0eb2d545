"""Offline W&B runs, read back from disk through W&B's own command."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OfflineRun:
    metadata: dict[str, Any]  # run_id, name, group, job_type, tags, project, state, exit_code, console_lines
    config: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, Any]]  # without W&B's own keys
    axes: dict[str, str]  # pattern of metrics → the metric that is their axis
    tables: dict[str, dict[str, Any]]  # name → its columns and data

    def rows(self, stage: str) -> list[dict[str, Any]]:
        """The history of one stage."""
        return [row for row in self.history if f"{stage}/global_step" in row]


def run_folders(folder: Path) -> list[Path]:
    """The offline runs under the folder that W&B was given, oldest first."""
    return sorted(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_ctime_ns)


def read_only_run(folder: Path) -> OfflineRun:
    """The run under the folder that W&B was given; there must be exactly one."""
    (run,) = run_folders(folder)
    return read_run(run)


def read_run(run: Path) -> OfflineRun:
    records = [json.loads(line) for line in inspect(run, "--json").splitlines()]
    whole = json.loads(inspect(run, "--json", "--summary"))
    opened = next(record["run"] for record in records if record["type"] == "run")
    summary = {name: value for name, value in whole["summary"].items() if not name.startswith("_")}
    ours = ("run_id", "name", "tags", "project", "state", "exit_code", "console_lines")
    return OfflineRun(
        metadata={name: whole.get(name) for name in ours}
        | {"group": opened.get("run_group"), "job_type": opened.get("job_type")},
        config=whole["config"],
        summary=summary,
        history=[
            {name: value for name, value in record["history"]["item"].items() if not name.startswith("_")}
            for record in records
            if record["type"] == "history"
        ],
        axes={
            record["metric"]["glob_name"]: record["metric"]["step_metric"]
            for record in records
            if record["type"] == "metric" and "glob_name" in record["metric"]
        },
        tables={
            name: json.loads((run / "files" / value["path"]).read_text())
            for name, value in summary.items()
            if isinstance(value, dict) and value.get("_type") == "table-file"
        },
    )


def inspect(run: Path, *options: str) -> str:
    """What `wandb leet inspect` does, without the half second that `wandb` takes to start."""
    from wandb.util import get_core_path

    (log,) = run.glob("*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", *options, "--run-file", str(log), str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
