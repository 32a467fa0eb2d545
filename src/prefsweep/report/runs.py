"""run.json files → one tidy frame, a row a run; what tells its rows apart; and which of them may share a table.

Columns without a dot or a slash are fields of the record. Dotted ones are settings, by their path in the config:
`stages.dpo.beta`. Those with a slash are metrics, costs among them: `judge/mean`, `cost/whole/flops`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prefsweep.errors import UserError
from prefsweep.pipeline.files import read_jsonl
from prefsweep.report.formatting import natural, value_text
from prefsweep.report.metrics import TOTALS

Run = dict[str, Any]  # a row of the frame; None where it lacks a column's value, NaN where that is a metric

# Groups of the config with a name, in the order in which a table lists them. Two that differ in name differ in much
# that follows from it (learning rates, lengths, …), so that the name alone tells them apart.
NAMES = ("method", "model", "dataset", "judge")
# Where and how a run ran, and the sweep it was part of: nothing that it computes.
NOT_COMPUTED = ("runtime", "tracking", "grid", "jobs", "sweep", "seed", "published", "report")


def read_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """Return the runs under each folder (a run's own or a sweep's), in order of name, 2 before 10.

    A job that lies in two sweeps is one result and is one row: counted twice it would feign precision.
    """
    records = [read_record(path) for folder in folders for path in run_files(folder)]
    fields = pd.DataFrame([record[0] for record in records], dtype=object)
    settings = pd.DataFrame([record[1] for record in records], dtype=object)
    metrics = pd.DataFrame([record[2] for record in records], dtype=float)
    left = pd.concat([fields, settings], axis=1)
    runs = pd.concat([left.where(left.notna(), None), metrics], axis=1)
    counted = (runs["status"] == "finished") | (runs["status"] == "diverged") & metrics.notna().any(axis=1)
    runs.insert(0, "has_result", counted.astype(bool))
    best = runs.sort_values("has_result", ascending=False, kind="stable").drop_duplicates("identity")
    runs = best.set_index("identity").loc[runs["identity"].unique()].reset_index()
    return runs.set_axis(runs.columns.astype(object), axis=1)  # by which a column is found twice as fast


def run_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    record, manifest = folder / "run.json", folder / "sweep.json"
    files = [record] if record.is_file() else [path for path in folder.glob("*/run.json") if path.parent.name[0] != "."]
    if manifest.is_file():  # jobs of an older grid may lie beside those of the last one
        jobs = json.loads(manifest.read_text())["jobs"]
        files = [path for path in files if path.parent.name in jobs]
    if not files:
        raise UserError(f"{folder}: no run.json in it or in its folders; name the folder of a run or of a sweep")
    return sorted(files, key=lambda path: natural(path.parent.name))


def read_record(path: Path) -> tuple[Run, Run, dict[str, float]]:
    """The fields, the settings and the metrics of one run.json."""
    try:
        record = json.loads(path.read_text())
        config, cost = dict(record.get("config") or {}), dict(record.get("cost") or {})
        outputs = (config.get("runtime") or {}).get("outputs") or "outputs"
        fields = {
            "folder": path.parent,
            "name": record.get("name") or path.parent.name,
            "identity": record.get("identity") or str(path.parent),
            "status": record["status"],
            "error": record.get("error"),
            "overrides": list(record.get("overrides") or ()),
            "seed": config.get("seed"),
            "result": (config.get("method") or {}).get("result"),
            "outputs": Path(outputs),
            "stages": dict(record.get("stages") or {}),
            "target": record.get("target"),
            "target_identity": (record.get("stages") or {}).get(record.get("target")),
            "inputs": dict(record.get("inputs") or {}),
            "decoding": dict(record.get("decoding") or {}),
            "judging": list(record.get("judging") or ()),
            "cost": cost,
            **{name: (config.get(name) or {}).get("name") for name in NAMES},
        }
        computed = {key: value for key, value in config.items() if key not in NOT_COMPUTED}
        named = {f"{name}.name" for name in NAMES}
        settings = {key: value for key, value in flatten(computed).items() if key not in named}
        return fields, settings, read_metrics(record.get("metrics") or {}, cost)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path}: not the record of a run; delete its folder and run the job again") from error


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted keys and values, a list as text, so that all of them can be grouped by.

    `pandas.json_normalize` would take a second for a thousand configs, and make 96 a float where a run lacks the key.
    """
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value_text(value) if isinstance(value, list) else value
    return flat


def read_metrics(metrics: Mapping[str, Any], cost: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among the metrics, the run's costs, and what the judge's mean gained per thousand labels."""
    totals = {
        prefix + name: value for total, (prefix, _) in TOTALS.items() for name, value in cost.get(total, {}).items()
    }
    numbers = {name: float(value) for name, value in {**metrics, **totals}.items() if is_number(value)}
    if {"judge/mean", "judge/base_mean"} <= numbers.keys() and numbers.get("cost/labels"):
        gain = numbers["judge/mean"] - numbers["judge/base_mean"]
        numbers["judge/gain_per_1000_labels"] = 1000 * gain / numbers["cost/labels"]
    return numbers


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def records(runs: pd.DataFrame) -> list[Run]:
    """The rows of the frame as dicts."""
    return [dict(zip(runs.columns, row, strict=True)) for row in runs.itertuples(index=False, name=None)]


def input_identity(run: Mapping[str, Any], name: str) -> str | None:
    """Return the identity of the stage behind an input of the run's target: `start`, `result`, `pairs`."""
    identity: str | None = run["stages"].get(run["inputs"].get(name))
    return identity


def stage_file(run: Mapping[str, Any], role: str | None, name: str) -> Path | None:
    """Return a file that one of the run's stages left, or None where it left none or is gone.

    `outputs` is as the run was told it: from here, or from a folder above the run's own.
    """
    identity, outputs = run["stages"].get(role), run["outputs"]
    if role is None or identity is None:
        return None
    tail = outputs / "stages" / role.partition("/")[0] / identity / name
    if tail.is_file() or outputs.is_absolute():
        return tail if tail.is_file() else None
    return next((top / tail for top in run["folder"].resolve().parents if (top / tail).is_file()), None)


def stage_rows(run: Run, role: str | None, name: str) -> list[Run]:
    """The rows of a JSON-lines file that one of the run's stages left; none where it left none."""
    path = stage_file(run, role, name)
    return list(read_jsonl(path)) if path is not None else []


def setting_names(runs: pd.DataFrame) -> list[str]:
    return [name for name in map(str, runs) if "." in name and "/" not in name.partition(".")[0]]


def metric_names(runs: pd.DataFrame) -> list[str]:
    return [name for name in map(str, runs) if "/" in name.partition(".")[0]]


def varying(runs: pd.DataFrame) -> list[str]:
    """The keys that tell runs apart, the seed aside: first those of `NAMES` that differ, then every setting that still
    differs between runs equal in those four."""
    names = [name for name in NAMES if runs[name].nunique(dropna=False) > 1]
    ignored = following_seed(runs)
    keys = [key for key in setting_names(runs) if key not in ignored and runs[key].nunique(dropna=False) > 1]
    named = runs.groupby(list(NAMES), dropna=False)
    return names + [key for key in keys if (named[key].nunique(dropna=False) > 1).any()]


def following_seed(runs: pd.DataFrame) -> list[str]:
    """The seeds of stages that are, in every run that has them, the run's own: `stages.dpo.seed=${seed}`."""
    keys = [key for key in setting_names(runs) if key.endswith(".seed")]
    return [key for key in keys if (runs[key].isna() | (runs[key] == runs["seed"])).all()]


def groups(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The values of the keys, and the runs that have them, in the order first seen."""
    if not keys:
        return [((), runs)]
    by_keys = runs.groupby(list(keys), sort=False, dropna=False)
    return [(tuple(part[key].iloc[0] for key in keys), part) for _, part in by_keys]
