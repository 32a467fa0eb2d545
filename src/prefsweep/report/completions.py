"""The values of every run's completions, averaged by prompt group: what an interval over prompts is computed from.

`completions.jsonl` of 500 prompts × 4 completions is megabytes of text, and a table of a thousand runs needs a thousand
of them. Their averages are kept in one parquet a sweep, and a file is read again only when it has changed.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from prefsweep.pipeline.files import atomic, read_jsonl
from prefsweep.report.runs import records, stage_file
from prefsweep.report.statistics import Array

PARQUET = "completions.parquet"
SAMPLES = "completions.jsonl"
COUNT = " completions"  # after a metric's name: the column that says how many completions its mean is over
ABOUT = b"prefsweep.completions"  # the file's metadata: what is known of each stage, by its identity
EMPTY = pd.DataFrame({"stage": [], "group": []}, dtype=str)


class Prompts(NamedTuple):
    """Completions by prompt group: which groups [G], their means [G], of several seeds [S, G], and their number [G]."""

    groups: Array
    means: Array
    sizes: Array


@dataclass(frozen=True, eq=False)
class Completions:
    """`frame` has a row for each target `stage` and prompt group, and for each metric its mean and its count there.

    `about[identity]`: `rows` of the stage in the frame, its number of `prompts` and their `hash`, the `commit` of the
    code and the fingerprint of the `data`, and the `size` and `mtime` of the file that was read.
    """

    frame: pd.DataFrame
    about: dict[str, dict[str, Any]]

    @cached_property
    def rows(self) -> dict[str, slice]:
        ends = list(accumulate(about["rows"] for about in self.about.values()))
        return {name: slice(end - self.about[name]["rows"], end) for name, end in zip(self.about, ends, strict=True)}

    @cached_property
    def codes(self) -> Array:
        return pd.factorize(self.frame["group"])[0].astype(float)

    def of(self, identity: str | None, metric: str) -> Prompts | None:
        """Return the completions that a target left with a value of the metric; None where none has."""
        rows = self.rows.get(identity or "")
        if rows is None or metric not in self.columns:
            return None
        means, counts = (array[rows] for array in self.columns[metric])
        prompts, present = Prompts(self.codes[rows], means, counts), counts > 0
        if present.all():
            return prompts
        return Prompts(*(array[present] for array in prompts)) if present.any() else None

    @cached_property
    def columns(self) -> dict[str, tuple[Array, Array]]:
        metrics = [name for name in map(str, self.frame) if name + COUNT in self.frame]
        return {name: (self.frame[name].to_numpy(), self.frame[name + COUNT].to_numpy()) for name in metrics}

    def known(self, runs: pd.DataFrame) -> list[dict[str, Any]]:
        """What is known of each run's completions; nothing of a run that left none."""
        return [self.about.get(identity or "", {}) for identity in runs["target_identity"]]


def read_completions(runs: pd.DataFrame) -> Completions:
    """Return the completions of the runs, and keep what was read of each sweep in its folder's parquet."""
    sweeps: dict[Path, dict[str, Path]] = {}
    for run in records(runs[runs["has_result"]]):
        path = stage_file(run, run["target"], SAMPLES)
        if path is not None:
            sweeps.setdefault(run["folder"].parent, {})[run["target_identity"]] = path
    parts = [read_sweep(folder / PARQUET, paths) for folder, paths in sweeps.items()]
    if len(parts) == 1:
        return parts[0]
    frame = pd.concat([EMPTY, *(part.frame for part in parts)], ignore_index=True)
    about = {identity: entry for part in parts for identity, entry in part.about.items()}
    return Completions(frame.drop_duplicates(["stage", "group"]), about)  # a stage may lie in two of the sweeps


def read_sweep(path: Path, files: Mapping[str, Path]) -> Completions:
    """Return what the parquet at `path` holds and what lies in the other files, by identity of the stage."""
    import pyarrow.parquet

    stored = Completions(EMPTY, {})
    with contextlib.suppress(OSError, ValueError, KeyError):  # absent, or not a file of ours: all is read again
        table = pyarrow.parquet.read_table(path)
        stored = Completions(table.to_pandas(), json.loads(table.schema.metadata[ABOUT]))
    stats = {identity: file.stat() for identity, file in files.items()}
    marks = {identity: {"size": stat.st_size, "mtime": stat.st_mtime_ns} for identity, stat in stats.items()}
    new = [name for name, mark in marks.items() if not mark.items() <= stored.about.get(name, {}).items()]
    if not new:
        return stored
    read = {name: summarise(files[name], name) for name in new}
    frames = [stored.frame[~stored.frame["stage"].isin(new)], *(frame for frame, _ in read.values())]
    about = {name: entry for name, entry in stored.about.items() if name not in new}
    about |= {name: entry | marks[name] for name, (_, entry) in read.items()}
    updated = Completions(pd.concat(frames, ignore_index=True), about)
    frame = updated.frame.astype({"stage": "category", "group": "category"})
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, ABOUT: json.dumps(about).encode()})
    with contextlib.suppress(OSError), atomic(path) as temporary:  # a folder that is not ours may be read-only
        pyarrow.parquet.write_table(table, temporary)
    return updated


def summarise(path: Path, identity: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of one stage's completions in the frame, and what is known of them."""
    rows = list(read_jsonl(path))
    values = pd.DataFrame([row.get("values") or {} for row in rows], dtype=float)
    by_group = values.groupby([str(row.get("group", row["id"])) for row in rows], sort=False)
    frame = pd.concat([by_group.mean(), by_group.count().add_suffix(COUNT)], axis=1).rename_axis("group").reset_index()
    frame.insert(0, "stage", identity)
    prompts = sorted({json.dumps([row["id"], row["prompt"]]) for row in rows})
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16]
    about = {"rows": len(frame), "prompts": len(prompts), "hash": digest, "commit": "", "data": ""}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a record of another version may say less
        record = json.loads(path.with_name("record.json").read_text())
        dataset = json.dumps(record["sections"]["dataset"], sort_keys=True)
        data = hashlib.sha256(dataset.encode()).hexdigest()[:12]
        about |= {"commit": record.get("commit") or "", "data": data}
    return frame, about
