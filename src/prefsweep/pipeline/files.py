"""Files by their content: hashed once, remembered by size and mtime; written aside and renamed."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """All of it or nothing: whoever reads `path` sees the old file or the new one."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def link(source: Path | str, target: Path | str) -> None:
    """Another name for a finished file, which nobody writes again; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def files_under(path: Path) -> list[Path]:
    """Every file of a folder in a fixed order, hidden ones left out; the file itself when `path` is one."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"no such file or folder: {path}")
    inner = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in inner if not any(part.startswith(".") for part in file.relative_to(path).parts))


class FileHashes:
    """sha256 of files, remembered across processes in `memory` so that a model folder is read once, not at every run.

    Two processes may write the memory at once; the later one wins and the other's entries are hashed again.
    """

    def __init__(self, memory: Path):
        self.memory = memory
        self.known: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):  # ruined: forgotten
            entries = json.loads(memory.read_text()).items()
            self.known = {key: entry for key, entry in entries if isinstance(entry, list) and len(entry) == 3}
        self.changed = False

    def of_file(self, path: Path) -> str:
        stat, key = path.stat(), str(path.resolve())
        remembered = self.known.get(key)
        if remembered and remembered[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(remembered[2])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.known[key] = [stat.st_size, stat.st_mtime_ns, digest]
        self.changed = True
        return digest

    def of_content(self, path: Path) -> str:
        """One hash for a file, or for a folder's relative names and contents; independent of where it lies."""
        whole = hashlib.sha256()
        for file in files_under(path):
            name = file.relative_to(path).as_posix() if path.is_dir() else ""
            whole.update(f"{name}\0{self.of_file(file)}\n".encode())
        self.save()
        return "sha256:" + whole.hexdigest()

    def of_several(self, named: Mapping[str, Sequence[Path]]) -> str:
        """One hash for files that have names of their own, wherever each of them lies and whatever it is called."""
        whole = hashlib.sha256()
        for name in sorted(named):
            whole.update(f"{name}\0{' '.join(self.of_file(file) for file in named[name])}\n".encode())
        self.save()
        return "sha256:" + whole.hexdigest()

    def save(self) -> None:
        if self.changed:
            write_json(self.memory, self.known)
            self.changed = False
