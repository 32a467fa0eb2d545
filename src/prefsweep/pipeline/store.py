"""Finished stages on disk: `<root>/<stage>/<identity>/` with a `record.json`. Presence means success.

Lock, look again, build aside, record, rename. A build that dies leaves its checkpoints aside and no artifact; the next
one goes on from them. What is damaged is set aside, never deleted, and built again.
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
# A path that holds no file: damage. Any other fault of reading (a permission, too many open files) is not.
NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def stage_folder(outputs: Path, role: str, identity: str) -> Path:
    """Return where a finished stage lies. A role such as `generate/base` is built by the stage before its slash."""
    return outputs / "stages" / role.partition("/")[0] / identity


@dataclass(frozen=True)
class Workplace:
    """The folders of a build in progress."""

    artifact: Path  # what will be the stage's folder; empty at the start of every attempt
    checkpoints: Path  # survives a killed attempt
    history: Path  # likewise; ends up in the artifact
    cost: Cost  # of this attempt and of those before it


class Store:
    def __init__(self, root: Path, hashes: FileHashes, say: Callable[[str], None] = print):
        self.root = root
        self.hashes = hashes
        self.say = say

    def folder(self, stage: Stage) -> Path:
        return stage_folder(self.root.parent, stage.role, stage.identity)

    def find(self, stage: Stage) -> Record | None:
        """The record of a finished stage whose files are what they were when it was built; else None."""
        folder = self.folder(stage)
        return self.read(folder)[0] if folder.is_dir() else None

    def read(self, folder: Path) -> tuple[Record | None, str]:
        """The record, and what is wrong with the artifact if anything is."""
        try:
            record: Record = json.loads((folder / RECORD).read_text())
            for name, digest in record["files"].items():
                if self.hashes.of_file(folder / name) != digest:
                    return None, f"{name} has changed"
        except (*NO_FILE, ValueError, KeyError, TypeError, AttributeError) as error:
            return None, f"{type(error).__name__}: {error}"
        self.hashes.save()
        return record, ""

    def set_damaged_aside(self, stage: Stage) -> None:
        """Only under the lock: what looked damaged a moment ago may have been built again since."""
        folder = self.folder(stage)
        if folder.is_dir():
            place = folder.with_name(f".damaged-{folder.name}-{time.time_ns()}")
            folder.rename(place)
            self.say(f"{folder} is damaged ({self.read(place)[1]}); moved to {place.name} and built again")

    def build(self, stage: Stage, make: Callable[[Workplace], dict[str, Any]]) -> tuple[Record, bool]:
        """The stage's record, and whether this call built it: two processes that want one stage build it once."""
        with self.locked(stage):
            if (record := self.find(stage)) is not None:
                return record, False
            self.set_damaged_aside(stage)
            aside = self.root / stage.name / ".building" / stage.identity
            place = Workplace(aside / "artifact", aside / "checkpoints", aside / "history.jsonl", Cost(aside))
            shutil.rmtree(place.artifact, ignore_errors=True)
            place.artifact.mkdir(parents=True)
            place.checkpoints.mkdir(exist_ok=True)
            with watched(place.cost):
                metrics = make(place)
            if place.history.is_file():
                shutil.copy(place.history, place.artifact / place.history.name)
            record = self.record(stage, place.artifact, metrics, place.cost)
            write_json(place.artifact / RECORD, record)
            place.cost.export_to(place.artifact)  # beside the record, not in it: no two builds take equal times
            place.artifact.rename(self.folder(stage))
            self.remember(stage, record)
            # Renamed first: a kill in the midst of the removal must not leave half a checkpoint to go on from.
            shutil.rmtree(aside.rename(aside.with_name(f".done-{stage.identity}")))
            return record, True

    @contextlib.contextmanager
    def locked(self, stage: Stage) -> Iterator[None]:
        lock = FileLock(self.root / stage.name / ".locks" / f"{stage.identity}.lock")
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.say(f"{stage.role}: another process is building it; waiting")
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

    def remember(self, stage: Stage, record: Record) -> None:
        """The hashes under the final names, so that the first reading does not compute them again."""
        for name, digest in record["files"].items():
            file = self.folder(stage) / name
            stat = file.stat()
            self.hashes.known[str(file.resolve())] = [stat.st_size, stat.st_mtime_ns, digest]
        self.hashes.changed = True
        self.hashes.save()

    def records(self, name: str = "*") -> Iterator[Record]:
        """Every finished stage of a name, or of any, unverified: for showing what is near."""
        for path in sorted(self.root.glob(f"{name}/*/{RECORD}")):
            with contextlib.suppress(OSError, ValueError):
                record = json.loads(path.read_text())
                if isinstance(record, dict) and record.get("identity") == path.parent.name:  # not what is set aside
                    yield record

    def find_similar(self, stage: Stage, *fields: str) -> Iterator[Path]:
        """The folders of finished stages, verified, that differ from it in these fields of the config alone."""

        def rest(payload: dict[str, Any]) -> tuple[Any, ...]:
            config = {name: value for name, value in payload["config"].items() if name not in fields}
            return payload["stage"], config, payload["sections"], payload["inputs"]

        for record in self.records(stage.name):
            with contextlib.suppress(KeyError, AttributeError):
                folder = self.root / stage.name / record["identity"]
                if rest(record) == rest(stage.payload) and self.read(folder)[0] is not None:
                    yield folder


@functools.cache
def commit() -> str | None:
    """The commit of the code that runs, `+` appended where files differ from it; None outside a checkout."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True)
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    if tracked.returncode:  # installed somewhere inside another project's checkout
        return None
    return head + ("+" if dirty else "")


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and of the libraries that decide the numbers."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform}-{os.uname().machine}"}
    for name in ("prefsweep", "torch", "transformers", "trl", "datasets", "accelerate", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
