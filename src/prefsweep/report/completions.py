"""The values of a run's answers, averaged by prompt group: what an interval over prompts is computed from.

`completions.jsonl` of 500 prompts × 4 answers is megabytes of text, and a table of a thousand runs reads a thousand: what
is read once lies, a few kilobytes, beside the stages under the identity of the stage that it came from.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prefsweep.report.columns import HALVES
from prefsweep.report.frame import Run
from prefsweep.report.statistics import Array

SAMPLES = "completions.jsonl"
STAGE = "evaluate"
FORMAT = 1  # of what is kept; raised when it changes


@dataclass(frozen=True)
class CompletionTable:
    """`means[metric][g]` over the `sizes[metric][g]` answers to group g's prompts; 0 where there is none."""

    groups: tuple[str, ...]
    means: dict[str, Array]
    sizes: dict[str, Array]
    rates: frozenset[str]  # metrics whose every value is 0, ½ or 1
    prompts: str  # a hash of the prompts, in order
    count: int  # of prompts
    commit: str = ""  # of the code that made them
    data: str = ""  # fingerprint of the dataset they were asked from

    def of(self, metric: str) -> tuple[list[str], Array, Array] | None:
        """Groups, means and sizes where the metric has answers; None where it has none."""
        if metric in HALVES and metric not in self.means:
            return self.half_sum(*HALVES[metric])
        return self.present(self.means[metric], self.sizes[metric]) if metric in self.means else None

    def half_sum(self, one: str, other: str) -> tuple[list[str], Array, Array] | None:
        """As a mean over the answers of both: an answer's value is the half sum, and how far the answer moves it."""
        if not {one, other} <= self.means.keys():
            return None
        sizes, whole, moved = self.sizes[one] + self.sizes[other], 0.0, np.zeros(len(self.groups))
        for name in (one, other):
            count = self.sizes[name].sum()
            rate = float(self.means[name] @ self.sizes[name] / count)
            whole += rate / 2
            moved += self.sizes[name] * (self.means[name] - rate) / (2 * count)
        return self.present(whole + moved * sizes.sum() / np.maximum(sizes, 1), sizes)

    def present(self, means: Array, sizes: Array) -> tuple[list[str], Array, Array]:
        there = sizes > 0
        if there.all():
            return list(self.groups), means, sizes
        groups = [group for group, has in zip(self.groups, there, strict=True) if has]
        return groups, means[there], sizes[there]


def stage_folder(run: Run, role: str) -> Path | None:
    """Where a stage of the run lies: under the run's outputs, as named from here or from the folder the run is in."""
    identity = run.stages.get(role)
    if identity is None:
        return None
    outputs = Path(str((run.config.get("runtime") or {}).get("outputs") or "outputs"))
    tops = [Path(), *run.folder.resolve().parents] if not outputs.is_absolute() else [Path()]
    places = (top / outputs / "stages" / role.partition("/")[0] / identity for top in tops)
    return next((place for place in places if place.is_dir()), None)


def samples_of(run: Run) -> Path | None:
    folder = stage_folder(run, STAGE)
    path = folder / SAMPLES if folder else run.folder / SAMPLES
    return path if path.is_file() else None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        yield from map(json.loads, file)


def read_completions(run: Run) -> CompletionTable | None:
    """None where the run left no samples."""
    path = samples_of(run)
    return summarised(path) if path is not None else None


def summarised(path: Path) -> CompletionTable:
    """What was kept of the samples, or what is kept from now on."""
    kept = path.parent.parent / ".answers" / path.parent.name
    stat = path.stat()
    mark = [FORMAT, stat.st_size, stat.st_mtime_ns]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if (found := unpack(kept.read_bytes(), mark)) is not None:
            return found
    commit, data = origin(path.parent / "record.json")
    made = dataclasses.replace(summarise(read_rows(path)), commit=commit, data=data)
    if path.parent.parent.name == STAGE:  # in a store, not in the folder of a run
        keep(kept, pack(made, mark))
    return made


def origin(record: Path) -> tuple[str, str]:
    """The commit and the data that a stage's record names."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        read = json.loads(record.read_text())
        data = hashlib.sha256(json.dumps(read["sections"]["dataset"], sort_keys=True).encode()).hexdigest()[:12]
        return str(read.get("commit") or ""), data
    return "", ""


def summarise(rows: Iterable[dict[str, Any]]) -> CompletionTable:
    sums: dict[str, dict[str, float]] = {}
    sizes: dict[str, dict[str, int]] = {}
    groups: dict[str, None] = {}
    prompts: set[str] = set()
    not_rates: set[str] = set()
    for row in rows:
        group = str(row.get("group", row["id"]))
        groups[group] = None
        prompts.add(json.dumps([row["id"], row["prompt"]]))
        for name, value in (row.get("values") or {}).items():
            by_group, size = sums.setdefault(name, {}), sizes.setdefault(name, {})
            by_group[group] = by_group.get(group, 0.0) + value
            size[group] = size.get(group, 0) + 1
            if value not in (0, 0.5, 1):
                not_rates.add(name)
    counted = {name: np.array([size.get(group, 0) for group in groups], dtype=float) for name, size in sizes.items()}
    return CompletionTable(
        groups=tuple(groups),
        means={
            name: np.array([by_group.get(group, 0.0) for group in groups]) / np.maximum(counted[name], 1)
            for name, by_group in sums.items()
        },
        sizes=counted,
        rates=frozenset(sums.keys() - not_rates),
        prompts=hashlib.sha256("\n".join(sorted(prompts)).encode()).hexdigest()[:16],
        count=len(prompts),
    )


def pack(made: CompletionTable, mark: list[int]) -> bytes:
    """A line of JSON, then the means and the sizes of each metric as they lie in memory."""
    header = {
        "mark": mark,
        "groups": made.groups,
        "metrics": list(made.means),
        "rates": sorted(made.rates),
        "prompts": made.prompts,
        "count": made.count,
        "commit": made.commit,
        "data": made.data,
    }
    arrays = [array.tobytes() for name in made.means for array in (made.means[name], made.sizes[name])]
    return json.dumps(header).encode() + b"\n" + b"".join(arrays)


def unpack(content: bytes, mark: list[int]) -> CompletionTable | None:
    line, _, body = content.partition(b"\n")
    header = json.loads(line)
    if header["mark"] != mark:
        return None
    names, groups = header["metrics"], tuple(header["groups"])
    table = np.frombuffer(body, dtype=float).reshape(len(names), 2, len(groups))
    means = {name: table[place, 0] for place, name in enumerate(names)}
    sizes = {name: table[place, 1] for place, name in enumerate(names)}
    rest = {name: header[name] for name in ("prompts", "count", "commit", "data")}
    return CompletionTable(groups, means, sizes, frozenset(header["rates"]), **rest)


def keep(path: Path, content: bytes) -> None:
    """Aside, then renamed; where the store cannot be written to, the samples are read again the next time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_bytes(content)
        aside.replace(path)
