"""Tokenised rows on disk, memory-mapped: written once, batch by batch, and never a Python list of all of them.

`<outputs>/cache/rows/<key>/` is named by what the rows follow from: the texts themselves, the view with its parameters,
the tokenizer's content and the version of this code. So no two datasets are taken for one another, wherever their texts
come from. A damaged entry is written again; deleting the folder costs only time.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from datasets import Dataset
from filelock import FileLock
from tqdm.auto import tqdm

from prefsweep.config.schema import RuntimeConfig
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.tokens import tokenizer_identity
from prefsweep.data.truncation import Truncation
from prefsweep.pipeline.files import FileHashes, atomic, write_json
from prefsweep.pipeline.fingerprint import fingerprint

CODE_VERSION = 3  # raised when equal texts come to give other rows
BATCH_SIZE = 1_000  # items of one call of a tokenizer: what it returns is small
ROWS, RECORD = "rows.arrow", "record.json"
LABEL = "label"  # the column of booleans; every other one is of token ids

Item = TypeVar("Item", str, PreferenceExample)
Columns = dict[str, list[Any]]
Make = Callable[[Sequence[Item], Truncation], Columns]


@dataclass(frozen=True)
class Cache:
    """Where rows are kept; with no folder they are held in memory, in Arrow too."""

    folder: Path | None = None
    progress: bool = False

    @classmethod
    def of(cls, runtime: RuntimeConfig) -> "Cache":
        return cls(Path(runtime.outputs) / "cache" / "rows", runtime.progress)

    def rows(
        self, view: dict[str, Any], items: Sequence[Item], tokenizer: Any, make: Make[Item]
    ) -> tuple[Dataset, Truncation]:
        """Return the rows that `make` makes of the items, and the counts of what it cut.

        `view` is the name and the parameters of `make`.
        """
        cut = Truncation()
        identity = tokenizer_identity(tokenizer)
        if self.folder is None or identity is None:
            return Dataset(pa.Table.from_batches(self.batches(items, make, cut))), cut
        key = {"code_version": CODE_VERSION, "view": view, "tokenizer": identity, "texts": hash_of(items)}
        folder = self.folder / fingerprint(key)
        lock = FileLock(self.folder / ".locks" / f"{folder.name}.lock")
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        with lock:
            cached = read(folder)
            if cached is None:
                write(folder, key, self.batches(items, make, cut), cut)
                cached = Dataset.from_file(str(folder / ROWS)), cut
            return cached

    def batches(self, items: Sequence[Item], make: Make[Item], cut: Truncation) -> Iterator[pa.RecordBatch]:
        bar = tqdm(total=len(items), desc="tokenising", unit="row", disable=not self.progress or None)
        for first in range(0, max(len(items), 1), BATCH_SIZE):
            part = items[first : first + BATCH_SIZE]
            yield record_batch(make(part, cut))
            bar.update(len(part))
        bar.close()


def record_batch(columns: Columns) -> pa.RecordBatch:
    """Return ids of 32 bits, half of what Arrow would make of Python's integers, and labels as they are."""
    types = {name: pa.bool_() if name == LABEL else pa.list_(pa.int32()) for name in columns}
    return pa.RecordBatch.from_pydict(columns, pa.schema(types))


def write(folder: Path, key: dict[str, Any], batches: Iterator[pa.RecordBatch], cut: Truncation) -> None:
    """Write an entry; only under its lock. `cut` is complete once all batches are made."""
    with atomic(folder) as temporary:
        temporary.mkdir()
        with (temporary / ROWS).open("wb") as file:
            first = next(batches)
            with pa.ipc.new_stream(file, first.schema) as stream:
                for batch in chain([first], batches):
                    stream.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        with (temporary / ROWS).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        write_json(temporary / RECORD, {**key, "sha256": digest, "cut": cut.counts()})


def read(folder: Path) -> tuple[Dataset, Truncation] | None:
    """Return a finished entry; None if there is none, or if it is not what was written."""
    try:
        record = json.loads((folder / RECORD).read_text())
        hashes = FileHashes(folder.parent / ".hashes.json")
        if hashes.of_file(folder / ROWS) != record["sha256"]:
            return None
        hashes.save()
        return Dataset.from_file(str(folder / ROWS)), Truncation(**record["cut"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def hash_of(items: Sequence[Item]) -> str:
    """Return the hash of the texts in their order."""
    digest = hashlib.sha256()
    for item in items:
        texts = (item,) if isinstance(item, str) else (item.prompt, item.chosen, item.rejected)
        for text in texts:
            content = b"" if text is None else text.encode(errors="surrogatepass")
            digest.update(f"{-1 if text is None else len(content)} ".encode() + content)
        if isinstance(item, PreferenceExample):
            digest.update(bytes([item.chosen_ended, item.rejected_ended]))
    return digest.hexdigest()
