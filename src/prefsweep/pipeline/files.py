"""Writing files atomically, reading and appending JSON lines, and hashing files by their content."""

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
    """Hard-link a finished file, which is never written again; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def files_under(path: Path) -> list[Path]:
    """Return every file of a folder that is not hidden, in a fixed order; if `path` is a file, that file."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"no such file or folder: {path}")
    inner = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in inner if not any(part.startswith(".") for part in file.relative_to(path).parts))


def flatten(value: Mapping[str, Any], prefix: str = "") -> Row:
    """Return the leaves of nested dicts by their dotted keys; an empty dict is a leaf."""
    leaves: Row = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            leaves |= flatten(item, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = item
    return leaves


class FileHashes:
    """sha256 of files, cached in the file `cache` by size and mtime so that a model is read once, not at every run.

    Two processes may write the cache at once; the later one wins and the other's entries are hashed again.
    """

    def __init__(self, cache: Path):
        self.cache = cache
        self.known: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a damaged cache counts as empty
            entries = json.loads(cache.read_text()).items()
            self.known = {key: entry for key, entry in entries if isinstance(entry, list) and len(entry) == 3}
        self.changed = False

    def of_file(self, path: Path) -> str:
        stat, key = path.stat(), str(path.resolve())
        cached = self.known.get(key)
        if cached and cached[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(cached[2])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.known[key] = [stat.st_size, stat.st_mtime_ns, digest]
        self.changed = True
        return digest

    def of_content(self, path: Path) -> str:
        """Return one hash of a file, or of a folder's relative names and contents, independent of its location."""
        return self.of_named_files({file.relative_to(path).as_posix(): [file] for file in files_under(path)})

    def of_named_files(self, files: Mapping[str, Sequence[Path]]) -> str:
        """Return one hash of the contents of files by the names they are given, independent of their paths."""
        combined = hashlib.sha256()
        for name in sorted(files):
            combined.update(f"{name}\0{' '.join(self.of_file(file) for file in files[name])}\n".encode())
        self.save()
        return "sha256:" + combined.hexdigest()

    def rename(self, old: Path, new: Path) -> None:
        """Rename a folder and keep the hashes of the files in it."""
        prefix = str(old.resolve())
        old.rename(new)
        for key in [key for key in self.known if key.startswith(f"{prefix}/")]:
            self.known[str(new.resolve()) + key.removeprefix(prefix)] = self.known.pop(key)
        self.changed = True
        self.save()

    def save(self) -> None:
        if self.changed:
            write_json(self.cache, self.known)
            self.changed = False
