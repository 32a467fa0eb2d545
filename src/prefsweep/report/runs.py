"""run.json files → one tidy frame, a row a run, and what tells its rows apart.

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
from prefsweep.pipeline.files import flatten, read_jsonl
from prefsweep.pipeline.store import stage_folder
from prefsweep.report.formatting import natural, value_text
from prefsweep.report.metrics import TOTALS

Run = dict[str, Any]  # a row of the frame; None where it lacks a setting, NaN where it lacks a metric

FIELDS = ("name", "identity", "status", "error", "overrides", "stages", "target", "inputs", "decoding", "judging")
# Groups of the config with a name, in the order in which a table lists them. Two that differ in name differ in much
# that follows from it (learning rates, lengths, …), so that the name alone tells them apart.
NAMES = ("method", "model", "dataset", "judge")
# Where and how a run ran, and the sweep it was part of: nothing that it computes.
NOT_COMPUTED = ("runtime", "tracking", "grid", "jobs", "sweep", "seed", "published", "report")


def read_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """Return the runs under each folder (a run's own or a sweep's), in order of name, 2 before 10.

    A job that lies in two sweeps is one result and is one row: counted twice it would feign precision.
    """
    parts = [read_record(path) for folder in folders for path in run_files(folder)]
    fields, settings, metrics = zip(*parts, strict=True)
    measured = pd.DataFrame(metrics, dtype=float)
    left = pd.concat([pd.DataFrame(fields, dtype=object), pd.DataFrame(settings, dtype=object)], axis=1)
    runs = pd.concat([left.where(left.notna(), None), measured], axis=1)
    was_judged = (runs["status"] == "diverged") & measured.notna().any(axis=1)
    runs.insert(0, "has_result", ((runs["status"] == "finished") | was_judged).astype(bool))
    best_first = runs.sort_values("has_result", ascending=False, kind="stable")
    runs = best_first.drop_duplicates("identity").sort_index().reset_index(drop=True)
    seeds = following_seed(runs)
    runs = runs.assign(is_seedless=bool(seeds) and runs[seeds].isna().all(axis=1))
    return runs.set_axis(runs.columns.astype(object), axis=1)  # by which a column is looked up twice as fast


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
    """Return the fields, the settings and the metrics of one run.json."""
    try:
        record = json.loads(path.read_text())
        config, stages = record["config"], record["stages"]
        fields = {key: record[key] for key in FIELDS} | {name: config[name]["name"] for name in NAMES}
        fields["warnings"] = record.get("warnings", [])  # which older records lack
        fields |= {"folder": path.parent, "seed": config["seed"], "result": config["method"]["result"]}
        fields |= {"outputs": Path(config["runtime"]["outputs"]), "stage_costs": record["cost"]["stages"]}
        fields["target_identity"] = stages.get(record["target"])
        # pandas.json_normalize would make 96 a float where a run lacks the key. A list is text, to be grouped by.
        leaves = flatten({key: value for key, value in config.items() if key not in NOT_COMPUTED})
        settings = {
            key: value_text(leaf) if isinstance(leaf, list) else leaf for key, leaf in leaves.items() if leaf != {}
        }
        for name in NAMES:
            del settings[f"{name}.name"]
        return fields, settings, read_metrics(record["metrics"], record["cost"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path}: not the record of a run; delete its folder and run the job again") from error


def read_metrics(metrics: Mapping[str, Any], cost: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers among the metrics, the run's costs, and the judge's gain per thousand labels."""
    costs = {prefix + name: n for total, (prefix, _) in TOTALS.items() for name, n in cost.get(total, {}).items()}
    numbers = {name: float(value) for name, value in {**metrics, **costs}.items() if is_number(value)}
    if {"judge/mean", "judge/base_mean"} <= numbers.keys() and numbers.get("cost/labels"):
        gain = numbers["judge/mean"] - numbers["judge/base_mean"]
        numbers["judge/gain_per_1000_labels"] = 1000 * gain / numbers["cost/labels"]
    return numbers


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def records(runs: pd.DataFrame) -> list[Run]:
    """Return the rows of the frame as dicts."""
    return [dict(zip(runs.columns, row, strict=True)) for row in runs.itertuples(index=False, name=None)]


def input_identity(run: Mapping[str, Any], name: str) -> str | None:
    """Return the identity of the stage behind an input of the run's target: `start`, `result`, `pairs`."""
    identity: str | None = run["stages"].get(run["inputs"].get(name))
    return identity


def stage_file(run: Run, role: str | None, name: str) -> Path | None:
    """Return a file that one of the run's stages left, or None where it left none or is gone.

    A relative `runtime.outputs` is looked for from here and from every folder above the run's own.
    """
    if role is None or role not in run["stages"]:
        return None
    path = stage_folder(run["outputs"], role, run["stages"][role]) / name
    folders = (Path(), *run["folder"].resolve().parents)
    return next((folder / path for folder in folders if (folder / path).is_file()), None)


def stage_rows(run: Run, role: str | None, name: str) -> list[Run]:
    """Return the rows of a JSON-lines file that one of the run's stages left; none where it left none."""
    path = stage_file(run, role, name)
    return list(read_jsonl(path)) if path is not None else []


def setting_names(runs: pd.DataFrame) -> list[str]:
    return [name for name in map(str, runs) if "." in name and "/" not in name.partition(".")[0]]


def metric_names(runs: pd.DataFrame) -> list[str]:
    return [name for name in map(str, runs) if "/" in name.partition(".")[0]]


def varying(runs: pd.DataFrame) -> list[str]:
    """Return the keys that tell runs apart, the seed aside: those of `NAMES`, then settings between equally named."""
    names = [name for name in NAMES if runs[name].nunique(dropna=False) > 1]
    ignored = following_seed(runs)
    keys = [key for key in setting_names(runs) if key not in ignored and runs[key].nunique(dropna=False) > 1]
    equally_named = runs.groupby(list(NAMES), dropna=False)
    return names + [key for key in keys if (equally_named[key].nunique(dropna=False) > 1).any()]


def following_seed(runs: pd.DataFrame) -> list[str]:
    """Return the seeds of stages that are, in every run that has them, the run's own: `stages.dpo.seed=${seed}`."""
    keys = [key for key in setting_names(runs) if key.endswith(".seed")]
    return [key for key in keys if (runs[key].isna() | (runs[key] == runs["seed"])).all()]


def groups(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Return the values of the keys, and the runs that have them, in the order first seen."""
    if not keys:
        return [((), runs)]
    by_keys = runs.groupby(list(keys), sort=False, dropna=False)
    return [(tuple(part[key].iloc[0] for key in keys), part) for _, part in by_keys]
