"""Finished stages on disk: `<root>/<stage>/<identity>/` with a `record.json`. A folder that exists is complete.

A build takes the lock, checks again, builds in a folder of its own, writes the record and renames the folder. A build
that dies leaves its checkpoints, from which the next one resumes. A damaged artifact is moved away, never deleted, and
built again.
"""

import contextlib
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prefsweep.pipeline.cost import Cost, watched
from prefsweep.pipeline.files import FileHashes, files_under, write_json
from prefsweep.pipeline.stage import Stage

RECORD = "record.json"
Record = dict[str, Any]
# A path that holds no file is damage. Any other error of reading (a permission, too many open files) is not.
NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def stage_folder(outputs: Path, role: str, identity: str) -> Path:
    """Return where a finished stage lies. A role such as `generate/base` is built by the stage before its slash."""
    return outputs / "stages" / role.partition("/")[0] / identity


@dataclass(frozen=True)
class BuildFolder:
    """The folders of a build in progress."""

    artifact: Path  # becomes the stage's folder; empty at the start of every attempt
    checkpoints: Path  # survives a killed attempt
    history: Path  # survives a killed attempt; copied into the artifact at the end
    cost: Cost  # of all attempts


@dataclass(eq=False)
class Store:
    root: Path
    hashes: FileHashes
    notify: Callable[[str], None] = print

    def folder(self, stage: Stage) -> Path:
        return stage_folder(self.root.parent, stage.role, stage.identity)

    def find(self, stage: Stage) -> Record | None:
        """Return the record of a finished stage whose files are unchanged since it was built; else None."""
        folder = self.folder(stage)
        return self.read(folder)[0] if folder.is_dir() else None

    def read(self, folder: Path) -> tuple[Record | None, str]:
        """Return the record of an intact artifact, or None and what is wrong with it."""
        try:
            record: Record = json.loads((folder / RECORD).read_text())
            for name, digest in record["files"].items():
                if self.hashes.of_file(folder / name) != digest:
                    return None, f"{name} has changed"
        except (*NO_FILE, ValueError, KeyError, TypeError, AttributeError) as error:
            return None, f"{type(error).__name__}: {error}"
        self.hashes.save()
        return record, ""

    def move_damaged_away(self, stage: Stage) -> None:
        """Rename the folder of a stage that `find` rejects. Needs the lock: another process may have built it since."""
        folder = self.folder(stage)
        if folder.is_dir():
            damaged = folder.with_name(f".damaged-{folder.name}-{time.time_ns()}")
            folder.rename(damaged)
            self.notify(f"{folder} is damaged ({self.read(damaged)[1]}); moved to {damaged.name} and built again")

    def build(self, stage: Stage, make: Callable[[BuildFolder], dict[str, Any]]) -> tuple[Record, bool]:
        """Return the stage's record and whether this call built it: two processes that need one stage build it once."""
        with self.locked(stage):
            if (record := self.find(stage)) is not None:
                return record, False
            self.move_damaged_away(stage)
            folder = self.root / stage.name / ".building" / stage.identity
            build = BuildFolder(folder / "artifact", folder / "checkpoints", folder / "history.jsonl", Cost(folder))
            shutil.rmtree(build.artifact, ignore_errors=True)
            build.artifact.mkdir(parents=True)
            build.checkpoints.mkdir(exist_ok=True)
            with watched(build.cost):
                metrics = make(build)
            if build.history.is_file():
                shutil.copy(build.history, build.artifact / build.history.name)
            record = self.record(stage, build.artifact, metrics, build.cost)
            write_json(build.artifact / RECORD, record)
            build.cost.export_to(build.artifact)  # after the record, whose file hashes must be reproducible
            self.hashes.rename(build.artifact, self.folder(stage))
            # Renamed first: a kill during the removal must not leave half a checkpoint to resume from.
            shutil.rmtree(folder.rename(folder.with_name(f".done-{stage.identity}")))
            return record, True

    @contextlib.contextmanager
    def locked(self, stage: Stage) -> Iterator[None]:
        lock = FileLock(self.root / stage.name / ".locks" / f"{stage.identity}.lock")
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.notify(f"{stage.role}: another process is building it; waiting")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def record(self, stage: Stage, artifact: Path, metrics: dict[str, Any], cost: Cost) -> Record:
        return {
            **stage.payload,
            "identity": stage.identity,
            "files": {str(file.relative_to(artifact)): self.hashes.of_file(file) for file in files_under(artifact)},
            "metrics": metrics,
            "cost": cost.record(),
            "commit": commit(),
            "versions": versions(),
        }

    def records(self, name: str = "*") -> Iterator[Record]:
        """Yield the records of every finished stage with this name, or of all, without verifying the files."""
        for path in sorted(self.root.glob(f"{name}/*/{RECORD}")):
            with contextlib.suppress(OSError, ValueError):
                record = json.loads(path.read_text())
                # The folder of a damaged artifact has another name.
                if isinstance(record, dict) and record.get("identity") == path.parent.name:
                    yield record

    def find_similar(self, stage: Stage, *fields: str) -> Iterator[Path]:
        """Yield the verified folders of finished stages whose config differs from this one's in these fields alone."""

        def shared(payload: dict[str, Any]) -> tuple[Any, ...]:
            config = {name: value for name, value in payload["config"].items() if name not in fields}
            return payload["stage"], config, payload["sections"], payload["inputs"]

        for record in self.records(stage.name):
            with contextlib.suppress(KeyError, AttributeError):
                folder = self.root / stage.name / record["identity"]
                if shared(record) == shared(stage.payload) and self.read(folder)[0] is not None:
                    yield folder


@functools.cache
def commit() -> str | None:
    """Return the commit of the running code, with `+` where files differ from it; None outside a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # fails for a package installed inside another project's checkout
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide the numbers."""
    installed = {"python": platform.python_version(), "platform": f"{sys.platform}-{os.uname().machine}"}
    for name in ("prefsweep", "torch", "transformers", "trl", "datasets", "accelerate", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed
