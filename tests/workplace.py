"""A folder of its own in which the real command runs, with the network off."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import forking

TESTS = Path(__file__).parent
PATH = os.pathsep.join([str(TESTS / "offline"), str(TESTS), os.environ.get("PYTHONPATH", "")])
COLUMNS = {"COLUMNS": "200"}  # read when the libraries are imported
SMALL = [
    *("debug=smoke", "runtime.threads=1", "runtime=cpu"),
    *("dataset.pretraining=300", "dataset.size=48", "dataset.validation=16", "dataset.test=16"),
]


@cache
def server() -> forking.Server:
    """The server of this process's commands, started by the first of them."""
    return forking.Server({**os.environ, "PYTHONPATH": PATH, **COLUMNS})


@dataclass(frozen=True)
class Workplace:
    folder: Path

    def command(self, *words: str, anew: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a fork; with `anew`, or with an environment of its own, in an interpreter of its own."""
        environ = {**os.environ, **self.environment, **environment}
        if not (anew or environment):
            done: subprocess.CompletedProcess[str] = server().run(words, self.folder, environ)
            return done
        return subprocess.run(
            [sys.executable, "-m", "prefsweep", *words],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=forking.LIMIT,
        )

    def run(self, *words: str, anew: bool = False) -> subprocess.CompletedProcess[str]:
        """At smoke size in a small world; whatever it prints is shown if a test fails."""
        done = self.command(*SMALL, *words, anew=anew)
        print(done.stdout, done.stderr)
        return done

    @property
    def environment(self) -> dict[str, str]:
        sockets = {"PREFSWEEP_TEST_SOCKETS": str(self.sockets)}
        wandb = {"WANDB_MODE": "offline", "WANDB_DATA_DIR": str(self.folder / "wandb-data")}
        return {"PYTHONPATH": PATH, **COLUMNS, **sockets, **wandb}

    @property
    def sockets(self) -> Path:
        return self.folder / "sockets.log"

    def stages(self, name: str) -> list[Path]:
        return sorted(path.parent for path in (self.folder / "outputs/stages" / name).glob("*/record.json"))

    def jobs(self, sweep: str) -> dict[str, dict[str, Any]]:
        """The run.json of each job, by method and seed."""
        files = (self.folder / "multirun_sweeps" / sweep).glob("*/run.json")
        runs = [json.loads(path.read_text()) for path in files]
        return {f"{run['config']['method']['name']}/{run['config']['seed']}": run for run in runs}

    def single(self) -> dict[str, Any]:
        """The run.json of the one single run."""
        (path,) = (self.folder / "outputs/runs").glob("*/run.json")
        run: dict[str, Any] = json.loads(path.read_text())
        return run
