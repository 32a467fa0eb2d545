"""Check what types cannot: ranges, finite numbers, and settings that contradict each other."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from prefsweep.config.architectures import positions
from prefsweep.config.model_checks import check_adapter, check_model, check_scorer
from prefsweep.config.schema import Config, DatasetConfig, IMDBConfig, LocalConfig
from prefsweep.config.stage import PolicyTrainingConfig, check_bounds
from prefsweep.errors import UserError, nearest

PUBLISHED = {"where", "metrics", "n", "source"}  # the keys of an entry of `published:`


def check_sections(config: Config) -> None:
    """Raise a `UserError` for the first mistake in any section of a config but its stages."""
    check_ranges(config)
    check_model(config.model)
    check_dataset("dataset", config.dataset)
    for name, dataset in config.other_datasets.items():
        check_dataset(f"other_datasets.{name}", dataset)
        check_scorer("judge", config.judge, dataset)
    for role in ("reward", "judge"):
        check_scorer(role, getattr(config, role), config.dataset)
    check_published(config.published)
    check_runtime(config)


def check_stages(config: Config) -> None:
    """Raise a `UserError` for the first mistake in the stages that the method runs."""
    for name, stage in config.stages.items():
        check_ranges(stage, f"stages.{name}.")
        stage.check(f"stages.{name}", config)
        if isinstance(stage, PolicyTrainingConfig) and stage.lora:
            check_adapter(f"stages.{name}.adapter", stage.adapter, config.model)
    check_lengths(config)


def check_runtime(config: Config) -> None:
    """Check what `runtime` and `report` demand of each other and of `jobs`."""
    runtime = config.runtime
    if config.report.versus is not None and len(config.report.versus) != 2:
        raise UserError(f"report.versus={config.report.versus}: name two rows, as in report.versus=[ppo,dpo]")
    if runtime.processes > 1 and config.jobs > 1:
        raise UserError(f"jobs={config.jobs}: runtime.processes={runtime.processes} takes the machine; set jobs=1")
    if runtime.resume_checkpoint_every % runtime.log_every:
        raise UserError(
            f"runtime.resume_checkpoint_every={runtime.resume_checkpoint_every}: must be a multiple of "
            f"runtime.log_every={runtime.log_every}, or a resumed run would average its metrics over other steps"
        )


def check_published(entries: list[Any] | None) -> None:
    """Raise a `UserError` for the first mistake in an experiment's `published:`."""
    for entry in entries or []:
        if not isinstance(entry, dict) or not {"where", "metrics"} <= entry.keys() <= PUBLISHED:
            raise UserError("published: each entry needs `where` and `metrics`, and may have `n` and `source`")
        if not isinstance(entry["where"], dict) or not isinstance(entry["metrics"], dict):
            raise UserError("published: `where` is {key: value} of the rows meant, `metrics` is {metric: number}")
        for name, value in entry["metrics"].items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"published: {name}: must be a number, not {value!r}")


def check_ranges(node: Any, path: str = "") -> None:
    """Check every field of a dataclass, and of those within it, against the range in the field's metadata."""
    for field in dataclasses.fields(node):
        key, value = f"{path}{field.name}", getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{key}.")
        for name, item in value.items() if isinstance(value, dict) and field.name != "stages" else ():
            if dataclasses.is_dataclass(item):
                check_ranges(item, f"{key}.{name}.")
        for item in value if isinstance(value, list) else [value]:
            check_value(key, item, field.metadata)


def check_value(key: str, value: Any, limits: Any) -> None:
    """Check that a value is finite and within the limits that `config_field` was given."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: must be a finite number")
    if value is None or isinstance(value, dict) or dataclasses.is_dataclass(value):
        return
    if "choices" in limits and value not in limits["choices"]:
        choices = limits["choices"]
        raise UserError(f"{key}={value}: no such choice{nearest(str(value), choices)}; there are: {', '.join(choices)}")
    if "above" in limits and not value > limits["above"]:
        raise UserError(f"{key}={value}: must be above {limits['above']}")
    if "at_least" in limits and not value >= limits["at_least"]:
        raise UserError(f"{key}={value}: must be at least {limits['at_least']}")
    if "below" in limits and not value < limits["below"]:
        raise UserError(f"{key}={value}: must be below {limits['below']}")
    if "at_most" in limits and not value <= limits["at_most"]:
        raise UserError(f"{key}={value}: must be at most {limits['at_most']}")


def check_dataset(key: str, dataset: Any) -> None:
    """Check the section `dataset`, or `other_datasets.NAME`: `key` is the one that errors name."""
    if not isinstance(dataset, DatasetConfig):
        raise UserError(f"{key}: its YAML names no schema; begin it with `defaults: [_local, _self_]`")
    path = getattr(dataset, "path", None)
    if path is not None and not Path(path).exists():
        raise UserError(f"{key}.path={path}: no such file or folder")
    if isinstance(dataset, LocalConfig) and Path(dataset.path).is_dir():
        raise UserError(f"{key}.path={path}: is a folder; set a file in it, or the dataset that it is a copy of")
    if isinstance(dataset, IMDBConfig):
        check_bounds(f"{key}.query_tokens", dataset.query_tokens)
        if dataset.pairs == "dataset":
            raise UserError(f"{key}.pairs=dataset: imdb has texts, not pairs; set {key}.pairs=generated")


def check_lengths(config: Config) -> None:
    """Refuse lengths for which a model with random weights has no positions."""
    if config.model.architecture is None or not config.model.from_scratch:
        return
    longest = positions(config.model.architecture)
    for name, stage in config.stages.items():
        reads_by_encoder = getattr(stage, "backbone", "policy") == "encoder"  # which has positions of its own
        if not reads_by_encoder and getattr(stage, "max_length", 0) > longest:
            raise UserError(f"stages.{name}.max_length={stage.max_length}: the model has {longest} positions")
        for key in ("max_new_tokens", "validation_max_new_tokens"):
            if getattr(stage, key, 0) >= longest:
                raise UserError(
                    f"stages.{name}.{key}={getattr(stage, key)}: leaves no room for a prompt in the model's {longest} "
                    "positions"
                )
