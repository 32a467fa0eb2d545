"""The metrics of every run by prompt group, as evaluation left them: what an interval over prompts is computed from.

A table of a thousand runs needs a thousand of those files. They are kept in one parquet a sweep, and a file is read
again only when it has changed.
"""

import contextlib
import hashlib
import json
from collections.abc import Collection, Mapping
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
FILE = "by_group.jsonl"  # which the target of a run left, a row a metric
COUNT = " rows"  # after a metric's name: the column that says how many completions or pairs are behind its value
# Columns with one value a stage: the size and time of the file when it was read, how many prompts were completed and
# which, the commit of the code, and the fingerprint of the data.
ABOUT = ("size", "mtime", "prompts", "hash", "commit", "data")
WORDS = ("stage", "group", "hash", "commit", "data")
EMPTY = pd.DataFrame(columns=["stage", "group", *ABOUT])


class Prompts(NamedTuple):
    """A metric by prompt group: which groups [G], their values [G], of several seeds [S, G], and their rows [G]."""

    groups: Array
    means: Array
    sizes: Array


@dataclass(frozen=True, eq=False)
class Completions:
    """A row for each target `stage` and prompt group: for each metric its value and its rows there, and `ABOUT`."""

    frame: pd.DataFrame

    @cached_property
    def about(self) -> dict[str, dict[str, Any]]:
        """What the frame holds of each stage besides its values."""
        firsts = self.frame.drop_duplicates("stage")
        return {row["stage"]: row for row in records(firsts[["stage", *ABOUT]])}

    @cached_property
    def rows(self) -> dict[str, Any]:
        """The rows of each stage in the frame."""
        return {str(stage): rows for stage, rows in self.frame.groupby("stage", observed=True).indices.items()}

    @cached_property
    def columns(self) -> dict[str, Array]:
        groups = pd.factorize(self.frame["group"])[0].astype(float)
        names = self.frame.columns.difference([*WORDS, *ABOUT])
        return {"group": groups} | {name: self.frame[name].to_numpy() for name in names}

    def of(self, identity: str | None, metric: str) -> Prompts | None:
        """Return what a target left of the metric by prompt group; None where nothing."""
        if identity not in self.rows or metric + COUNT not in self.columns:
            return None
        rows = self.rows[identity]
        rows = rows[self.columns[metric + COUNT][rows] > 0]
        return Prompts(*(self.columns[name][rows] for name in ("group", metric, metric + COUNT))) if len(rows) else None

    def of_runs(self, runs: pd.DataFrame) -> list[dict[str, Any]]:
        """Return `about` of each run's completions; nothing of a run that left none."""
        return [self.about.get(identity or "", {}) for identity in runs["target_identity"]]


def read_completions(runs: pd.DataFrame, metrics: Collection[str] | None = None) -> Completions:
    """Return what the runs left of these metrics (default: all), and keep all of each sweep in its folder's parquet."""
    sweeps: dict[Path, dict[str, Path]] = {}
    columns = ["folder", "outputs", "stages", "target", "target_identity"]
    for run in records(runs.loc[runs["has_result"], columns]):
        path = stage_file(run, run["target"], FILE)
        if path is not None:
            sweeps.setdefault(run["folder"].parent, {})[run["target_identity"]] = path
    frames = [read_sweep(folder / PARQUET, paths, metrics) for folder, paths in sweeps.items()]
    if len(frames) == 1:
        return Completions(frames[0])
    frame = pd.concat([EMPTY, *frames], ignore_index=True)
    return Completions(frame.drop_duplicates(["stage", "group"]))  # a stage may lie in two of the sweeps


def read_sweep(path: Path, files: Mapping[str, Path], metrics: Collection[str] | None = None) -> pd.DataFrame:
    """Return what the parquet at `path` holds and what lies in the other files, by identity of the stage."""
    stored, about = EMPTY, {}
    with contextlib.suppress(OSError, ValueError, KeyError):  # absent, or not a file of ours: all is read again
        frame = read_parquet(path, metrics)
        about, stored = Completions(frame).about, frame
    stats = {identity: file.stat() for identity, file in files.items()}
    read = {identity: (row["size"], row["mtime"]) for identity, row in about.items()}
    new = [name for name, stat in stats.items() if read.get(name) != (stat.st_size, stat.st_mtime_ns)]
    if not new:
        return stored
    if about and metrics is not None:
        stored = read_parquet(path, None)  # all of it is written again
    frames = [stored[~stored["stage"].isin(new)], *(summarise(files[name], name) for name in new)]
    frame = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    frame = frame.astype(dict.fromkeys(WORDS, "category"))
    with contextlib.suppress(OSError), atomic(path) as temporary:  # a folder that is not ours may be read-only
        frame.to_parquet(temporary)
    return frame


def read_parquet(path: Path, metrics: Collection[str] | None) -> pd.DataFrame:
    """Return the parquet's columns of these metrics alone: there are many, and a table shows few of them."""
    if metrics is None:
        return pd.read_parquet(path)
    from pyarrow.parquet import read_schema

    wanted = {"stage", "group", *ABOUT, *metrics, *(metric + COUNT for metric in metrics)}
    return pd.read_parquet(path, columns=[name for name in read_schema(path).names if name in wanted])


def summarise(path: Path, identity: str) -> pd.DataFrame:
    """Return the rows of one stage in the frame."""
    stat, record = path.stat(), json.loads(path.with_name(RECORD).read_text())
    columns = {}
    for row in read_jsonl(path):
        columns[row["metric"]] = pd.Series(row["values"], row["groups"], dtype=float)
        columns[row["metric"] + COUNT] = pd.Series(row["rows"], row["groups"], dtype=float)
    frame = pd.DataFrame(columns).rename_axis("group").reset_index()
    prompts = sorted({json.dumps([row["id"], row["prompt"]]) for row in read_jsonl(path.with_name(SAMPLES))})
    return frame.assign(
        stage=identity,
        size=stat.st_size,
        mtime=stat.st_mtime_ns,
        prompts=len(prompts),
        hash=fingerprint("\n".join(prompts))[:16],
        commit=record["commit"] or "",
        data=fingerprint(json.dumps(record["sections"]["dataset"], sort_keys=True))[:12],
    )


def first_samples(run: Run) -> dict[str, Run]:
    """Return the first completion of each prompt, by the prompt's id; nothing of a run that left none."""
    return {row["id"]: row for row in stage_rows(run, run["target"], SAMPLES) if row["sample"] == 0}


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
