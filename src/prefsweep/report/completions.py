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
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from prefsweep.pipeline.files import atomic, read_jsonl
from prefsweep.pipeline.store import RECORD
from prefsweep.report.runs import Run, records, stage_file, stage_rows
from prefsweep.report.statistics import Array

PARQUET = "completions.parquet"
SAMPLES = "completions.jsonl"
COUNT = " completions"  # after a metric's name: the column that says how many completions its mean is over
ABOUT = b"prefsweep.completions"  # the file's metadata: `Completions.about`
EMPTY = pd.DataFrame({"stage": [], "group": []}, dtype=str)


class Prompts(NamedTuple):
    """Completions by prompt group: which groups [G], their means [G], of several seeds [S, G], and their number [G]."""

    groups: Array
    means: Array
    sizes: Array


@dataclass(frozen=True, eq=False)
class Completions:
    """`frame` has a row for each target `stage` and prompt group, and for each metric its mean and its count there.

    `about[identity]`: the number of `prompts` of the stage and their `hash`, the `commit` of the code, the fingerprint
    of the `data`, and the size and time (`read`) of the file when it was read.
    """

    frame: pd.DataFrame
    about: dict[str, dict[str, Any]]

    @cached_property
    def rows(self) -> dict[str, Any]:
        """The rows of each stage in the frame."""
        return {str(stage): rows for stage, rows in self.frame.groupby("stage", observed=True).indices.items()}

    @cached_property
    def columns(self) -> dict[str, Array]:
        groups = pd.factorize(self.frame["group"])[0].astype(float)
        return {"group": groups} | {name: self.frame[name].to_numpy() for name in map(str, self.frame.columns[2:])}

    def of(self, identity: str | None, metric: str) -> Prompts | None:
        """Return the completions that a target left with a value of the metric; None where none has."""
        if identity not in self.rows or metric + COUNT not in self.columns:
            return None
        rows = self.rows[identity]
        rows = rows[self.columns[metric + COUNT][rows] > 0]
        return Prompts(*(self.columns[name][rows] for name in ("group", metric, metric + COUNT))) if len(rows) else None

    def of_runs(self, runs: pd.DataFrame) -> list[dict[str, Any]]:
        """Return `about` of each run's completions; nothing of a run that left none."""
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
    states = {identity: [stat.st_size, stat.st_mtime_ns] for identity, stat in stats.items()}
    new = [name for name, state in states.items() if stored.about.get(name, {}).get("read") != state]
    if not new:
        return stored
    summaries = {name: summarise(files[name], name) for name in new}
    frames = [stored.frame[~stored.frame["stage"].isin(new)], *(frame for frame, _ in summaries.values())]
    frame = pd.concat(frames, ignore_index=True).astype({"stage": "category", "group": "category"})
    about = stored.about | {name: about | {"read": states[name]} for name, (_, about) in summaries.items()}
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, ABOUT: json.dumps(about).encode()})
    with contextlib.suppress(OSError), atomic(path) as temporary:  # a folder that is not ours may be read-only
        pyarrow.parquet.write_table(table, temporary)
    return Completions(frame, about)


def summarise(path: Path, identity: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the rows of one stage's completions in the frame, and what `about` holds of them."""
    rows = list(read_jsonl(path))
    values = pd.DataFrame([row["values"] for row in rows], dtype=float)
    by_group = values.groupby([row["group"] for row in rows], sort=False)
    frame = pd.concat([by_group.mean(), by_group.count().add_suffix(COUNT)], axis=1).rename_axis("group").reset_index()
    frame.insert(0, "stage", identity)
    prompts = sorted({json.dumps([row["id"], row["prompt"]]) for row in rows})
    record = json.loads(path.with_name(RECORD).read_text())
    about = {
        "prompts": len(prompts),
        "hash": fingerprint("\n".join(prompts))[:16],
        "commit": record["commit"] or "",
        "data": fingerprint(json.dumps(record["sections"]["dataset"], sort_keys=True))[:12],
    }
    return frame, about


def first_samples(run: Run) -> dict[str, Run]:
    """Return the first completion of each prompt, by the prompt's id; nothing of a run that left none."""
    return {row["id"]: row for row in stage_rows(run, run["target"], SAMPLES) if row["sample"] == 0}


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
