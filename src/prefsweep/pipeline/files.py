"""Files by their content: hashed once, remembered by size and mtime; written aside and renamed."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` for the caller to fill, as a file or as a folder, and rename it into place.

    A reader of `path` sees the old content or all of the new, never a part: after an exception the old content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    remove(temporary)
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():  # a folder cannot be renamed over another that is not empty
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with atomic(path) as temporary, temporary.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_jsonl(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSON-lines file one by one, without holding the whole file in memory."""
    with path.open() as file:
        yield from map(json.loads, file)


def append_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Append rows to a JSON-lines file and flush after each, so that a killed process loses at most the last line."""
    with path.open("a") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            file.flush()


def recover_jsonl(path: Path) -> list[Row]:
    """Return the complete rows of a file that a killed process was appending to, and cut a partial last line off it."""
    if not path.is_file():
        return []
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        write_text(path, complete)
    return [json.loads(line) for line in complete.splitlines()]


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
