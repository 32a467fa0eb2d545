"""Tokenised rows on disk, memory-mapped: made once, batch by batch, and never a Python list of all of them.

`<outputs>/cache/rows/<key>/` is named by what the rows follow from: the texts themselves, the view with its parameters,
the tokenizer's content and a revision of this code. So no two datasets are taken for one another, wherever their texts
come from. Lock, look again, write aside, rename; what is damaged is made again; deleting the folder costs only time.
"""

import gc
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from datasets import Dataset
from filelock import FileLock
from tqdm.auto import tqdm

from prefsweep.config.schema import RuntimeConfig
from prefsweep.data.parts import in_order
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.truncation import Ids, Truncation
from prefsweep.pipeline.files import FileHashes, write_json
from prefsweep.pipeline.fingerprint import fingerprint

REVISION = 1  # raised when equal texts come to give other rows
AT_ONCE = 1_000  # texts to a tokenizer's call: what it returns is small
MOST = 8  # processes that make rows; more would wait for the one that writes them
ALONE = 8  # parts that one process makes as soon as others were started
ROWS, RECORD = "rows.arrow", "record.json"

Item = TypeVar("Item", str, PreferenceExample)
Columns = dict[str, list[Ids]]
Make = Callable[[Sequence[Item], Truncation], Columns]
Packed = dict[str, tuple[np.ndarray, np.ndarray]]  # of each column all ids in one row, and where each row ends


@dataclass(frozen=True)
class Cache:
    """Where rows are kept; with no folder they are made in memory, in Arrow too."""

    folder: Path | None = None
    progress: bool = False
    workers: int = 1

    @classmethod
    def of(cls, runtime: RuntimeConfig) -> "Cache":
        """With as many workers as this job has threads: its share of the cores, where others run beside it."""
        import torch  # which every stage has loaded

        workers = min(torch.get_num_threads(), MOST)
        return cls(Path(runtime.outputs) / "cache" / "rows", runtime.progress, workers)

    def rows(
        self, view: dict[str, Any], items: Sequence[Item], tokenizer: Any, make: Make[Item]
    ) -> tuple[Dataset, Truncation]:
        """What `make` makes of the items, and what it had to cut; `view` is its name and its parameters."""
        cut = Truncation()
        known = content_of(tokenizer)
        if self.folder is None or known is None:
            return Dataset(pa.Table.from_batches(self.batches(items, make, cut))), cut
        named = {"revision": REVISION, "view": view, "tokenizer": known, "texts": content(items)}
        folder = self.folder / fingerprint(named)
        lock = FileLock(self.folder / ".locks" / f"{folder.name}.lock")
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        with lock:
            found = read(folder)
            return found if found is not None else self.write(folder, named, self.batches(items, make, cut), cut)

    def batches(self, items: Sequence[Item], make: Make[Item], cut: Truncation) -> Iterator[pa.RecordBatch]:
        def work(part: Sequence[Item]) -> tuple[Packed, Truncation]:
            own = Truncation()
            with no_collection():
                return packed(make(part, own)), own

        bar = tqdm(total=len(items), desc="tokenising", unit="row", disable=not self.progress or None)
        starts = range(0, max(len(items), 1), AT_ONCE)
        parts = (items[first : first + AT_ONCE] for first in starts)
        for columns, own in in_order(work, parts, self.workers if len(starts) > ALONE else 1):
            cut.add(own)
            yield arrow(columns)
            bar.update(min(AT_ONCE, len(items) - bar.n))
        bar.close()

    def write(
        self, folder: Path, named: dict[str, Any], batches: Iterator[pa.RecordBatch], cut: Truncation
    ) -> tuple[Dataset, Truncation]:
        """Aside, then renamed; only under the lock."""
        aside = folder.with_name(f".{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        with (aside / ROWS).open("wb") as file:
            first = next(batches)
            with pa.ipc.new_stream(file, first.schema) as stream:
                stream.write_batch(first)
                for batch in batches:
                    stream.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        digest = FileHashes(aside / ".hashes").of_file(aside / ROWS)
        write_json(aside / RECORD, {**named, "sha256": digest, "cut": cut.counts()})
        shutil.rmtree(folder, ignore_errors=True)  # damaged; whoever has it mapped keeps the file
        aside.rename(folder)
        return Dataset.from_file(str(folder / ROWS)), cut


@contextmanager
def no_collection() -> Iterator[None]:
    """Thousands of new lists, none in a cycle, would be searched for cycles again and again: a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read(folder: Path) -> tuple[Dataset, Truncation] | None:
    """None where there is nothing, or not what was written."""
    try:
        record = json.loads((folder / RECORD).read_text())
        hashes = FileHashes(folder.parent / ".hashes.json")
        if hashes.of_file(folder / ROWS) != record["sha256"]:
            return None
        hashes.save()
        return Dataset.from_file(str(folder / ROWS)), Truncation(**record["cut"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def packed(columns: Columns) -> Packed:
    """Ids of 32 bits: half of what Arrow would make of Python's integers, and bytes that travel as they are."""
    ends = {name: np.cumsum([0, *map(len, rows)], dtype=np.int32) for name, rows in columns.items()}
    return {
        name: (np.fromiter(chain.from_iterable(rows), np.int32, ends[name][-1]), ends[name])
        for name, rows in columns.items()
    }


def arrow(columns: Packed) -> pa.RecordBatch:
    lists = [pa.ListArray.from_arrays(pa.array(ends), pa.array(ids)) for ids, ends in columns.values()]
    return pa.RecordBatch.from_arrays(lists, names=list(columns))


def content(items: Sequence[Item]) -> str:
    """The hash of the texts, in their order."""
    whole = hashlib.sha256()
    for item in items:
        texts = (item,) if isinstance(item, str) else (item.prompt, item.chosen, item.rejected)
        for text in texts:
            said = b"" if text is None else text.encode(errors="surrogatepass")
            whole.update(f"{-1 if text is None else len(said)} ".encode() + said)
    return whole.hexdigest()


def content_of(tokenizer: Any) -> str | None:
    """The hash of all that decides a fast tokenizer's output; None of one that is not fast, which is not cached."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    whole = json.loads(backend.to_str())
    for passing in ("padding", "truncation"):  # what the last call asked for
        whole.pop(passing, None)
    return fingerprint({"tokenizer": whole, "eos": tokenizer.eos_token_id, "class": type(tokenizer).__name__})
