"""run.json files → runs, what differs between them, and the groups that differ in nothing but the seed."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prefsweep.errors import UserError
from prefsweep.pipeline.compare import flatten
from prefsweep.report.columns import COST_OF

# Groups of the config with a name, in the order in which a table lists them. Two that differ in name differ in much
# that follows from it (learning rates, lengths, …), so that the name alone tells them apart.
NAMED = ("method", "model", "dataset", "judge")
# Where and how a run ran, and the sweep it was part of: nothing that it computes.
NOT_COMPUTED = ("runtime", "tracking", "grid", "jobs", "sweep", "seed", "published", "report")


@dataclass(frozen=True)
class Run:
    """One run.json. A run that did not finish may lack metrics, costs, stages."""

    folder: Path
    name: str
    identity: str
    status: str
    metrics: dict[str, float]  # the finite ones, and what it cost
    cost: dict[str, Any]
    config: dict[str, Any]
    stages: dict[str, str]
    error: str | None
    overrides: tuple[str, ...] = ()  # the words of its command

    @property
    def has_result(self) -> bool:
        """Whether its metrics count. One that diverged and could still be judged does: leaving it out would flatter."""
        return self.status == "finished" or (self.status == "diverged" and bool(self.metrics))

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @cached_property
    def names(self) -> dict[str, Any]:
        return {group: (self.config.get(group) or {}).get("name") for group in NAMED}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted key → value, for all that this run computes from, the names aside."""
        computed = {key: value for key, value in self.config.items() if key not in NOT_COMPUTED}
        names = {f"{group}.name" for group in NAMED}
        return {key: value for key, value in flatten(computed).items() if key not in names and value != {}}

    def value(self, key: str) -> Any:
        """What this run says for a key of `varying`; None where the key means nothing to it."""
        return self.names[key] if key in NAMED else self.settings.get(key)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs under each folder (a run's own or a sweep's), in order of name, 2 before 10.

    A job that lies in two sweeps is one result and is read once: counted twice it would feign precision.
    """
    runs: dict[str, Run] = {}
    for folder in folders:
        for path in run_files(folder):
            run = read_run(path)
            if run.identity not in runs or (run.has_result and not runs[run.identity].has_result):
                runs[run.identity] = run
    return list(runs.values())


def run_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    own, manifest = folder / "run.json", folder / "sweep.json"
    files = [own] if own.is_file() else [path for path in folder.glob("*/run.json") if path.parent.name[0] != "."]
    if manifest.is_file():  # jobs of an older grid may lie beside those of the last one
        jobs = json.loads(manifest.read_text())["jobs"]
        files = [path for path in files if path.parent.name in jobs]
    if not files:
        raise UserError(f"{folder}: no run.json in it or in its folders; name the folder of a run or of a sweep")
    return sorted(files, key=lambda path: natural(path.parent.name))


def natural(name: str) -> list[list[tuple[float, str]]]:
    """A sorting key for `model_dataset_method_…`: part by part, so that sft comes before sft+dpo, and 2 before 10."""
    parts = (re.findall(r"(\d+(?:\.\d+)?)|(\D+)", part) for part in name.split("_"))
    return [[(float(digits or 0), letters) for digits, letters in part] for part in parts]


def read_run(path: Path) -> Run:
    try:
        read = json.loads(path.read_text())
        found = read.get("metrics") or {}
        metrics = {key: float(value) for key, value in found.items() if is_number(value)}
        metrics |= costs(read.get("cost") or {})
        return Run(
            folder=path.parent,
            name=read.get("name") or path.parent.name,
            identity=read.get("identity") or str(path.parent),
            status=read["status"],
            metrics=metrics | per_label(metrics),
            cost=dict(read.get("cost") or {}),
            config=dict(read.get("config") or {}),
            stages=dict(read.get("stages") or {}),
            error=None if read.get("error") is None else str(read["error"]),
            overrides=tuple(read.get("overrides") or ()),
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path}: not the record of a run; delete its folder and run the job again") from error


def costs(cost: Mapping[str, Any]) -> dict[str, float]:
    """`cost/flops` of what its method took, `cost/whole/flops` of all stages, `cost/paid/flops` of what it built."""
    found = {f"{prefix}{name}": value for kind, prefix in COST_OF.items() for name, value in cost.get(kind, {}).items()}
    return {name: float(value) for name, value in found.items() if is_number(value)}


def per_label(metrics: Mapping[str, float]) -> dict[str, float]:
    """What the judge's mean gained over the base for every thousand labels that the method bought."""
    if {"judge/mean", "judge/base_mean"} <= metrics.keys() and metrics.get("cost/labels"):
        gained = metrics["judge/mean"] - metrics["judge/base_mean"]
        return {"judge/gain_per_1000_labels": 1000 * gained / metrics["cost/labels"]}
    return {}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def varying(runs: Sequence[Run]) -> list[str]:
    """The keys that tell runs apart, the seed aside: first `method`, `model`, `dataset`, `judge` where names differ,
    then every dotted key that still differs between runs equal in those four."""
    names = [name for name in NAMED if len({run.names[name] for run in runs}) > 1]
    ignored = following_seed(runs)
    first: dict[tuple[Any, ...], Run] = {}
    differing: dict[str, None] = {}  # a set that keeps its order
    for run in runs:
        other = first.setdefault(tuple(run.names.values()), run)
        for key in {**other.settings, **run.settings}:
            if key not in ignored and other.settings.get(key) != run.settings.get(key):
                differing[key] = None
    return names + list(differing)


def groups(runs: Sequence[Run], keys: Sequence[str]) -> list[list[Run]]:
    """The runs that agree in the keys, in the order first seen."""
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(repr(run.value(key)) for key in keys), []).append(run)
    return list(found.values())


def following_seed(runs: Sequence[Run]) -> set[str]:
    """The keys of stages whose seed is, in every run that has it, the run's own: `stages.dpo.seed=${seed}`."""
    seeds = {key for run in runs for key in run.settings if key.endswith(".seed")}
    return {key for key in seeds if all(run.settings.get(key, run.seed) == run.seed for run in runs)}
