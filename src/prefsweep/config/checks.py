"""Check what types cannot: ranges, finite numbers, and settings that contradict each other."""

import dataclasses
import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefsweep.config.architectures import positions
from prefsweep.config.hydra_errors import unknown_key
from prefsweep.config.model_checks import check_adapter, check_model, check_scorer
from prefsweep.config.schema import Config, DatasetConfig, IMDBConfig, LocalConfig
from prefsweep.config.stage import check_bounds, check_share
from prefsweep.errors import UserError, nearest

PUBLISHED = {"where", "metrics", "n", "source"}  # the keys of an entry of `published:`
LIMITS = {"above": operator.gt, "at_least": operator.ge, "below": operator.lt, "at_most": operator.le}


def check_sections(config: Config) -> None:
    """Check every range, and what the sections but the stages demand of each other; raise for the first mistake."""
    check_ranges(config)
    check_model(config.model)
    check_dataset("dataset", config.dataset)
    for name, dataset in config.other_datasets.items():
        check_dataset(f"other_datasets.{name}", dataset)
        check_scorer("judge", config.judge, dataset)
    for role in ("reward", "judge"):
        check_scorer(role, getattr(config, role), config.dataset)
        check_prompt_tokens(role, getattr(config, role))
    check_published(config.published)
    check_runtime(config)


def check_stages(config: Config) -> None:
    """Check the stages that the method runs; raise for the first mistake."""
    for name, stage in config.stages.items():
        stage.check(f"stages.{name}", config)
        check_prompt_tokens(f"stages.{name}", stage)
        if getattr(stage, "lora", False):
            check_adapter(f"stages.{name}.adapter", stage.adapter, config.model)
    check_lengths(config)


def check_prompt_tokens(key: str, section: Any) -> None:
    """Refuse a budget for prompts that leaves their completions nothing."""
    budget, length = getattr(section, "prompt_tokens", None), getattr(section, "max_length", 0)
    if budget is not None and budget >= length:
        room = f"leaves a completion no room in {key}.max_length={length}"
        raise UserError(f"{key}.prompt_tokens={budget}: {room}; lower it")


def check_runtime(config: Config) -> None:
    """Check what `runtime` and `report` demand of each other and of `jobs`."""
    runtime = config.runtime
    if config.report.versus is not None and len(config.report.versus) != 2:
        raise UserError(f"report.versus={config.report.versus}: name two rows, as in report.versus=[ppo,dpo]")
    if runtime.processes > 1 and config.jobs > 1:
        raise UserError(f"jobs={config.jobs}: runtime.processes={runtime.processes} takes the machine; set jobs=1")
    rows, checkpointing = runtime.micro_batch, runtime.gradient_checkpointing
    if rows != "auto" and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
        raise UserError(f"runtime.micro_batch={rows}: must be auto or a number of rows, at least 1")
    if checkpointing != "auto" and not isinstance(checkpointing, bool):
        raise UserError(f"runtime.gradient_checkpointing={checkpointing}: must be auto, true or false")
    if runtime.resume_checkpoint_every % runtime.log_every:
        key = f"runtime.resume_checkpoint_every={runtime.resume_checkpoint_every}"
        raise UserError(f"{key}: must be a multiple of runtime.log_every={runtime.log_every}, which averages metrics")


def check_published(entries: list[Any] | None) -> None:
    """Raise a `UserError` for the first mistake in an experiment's `published:`."""
    for entry in entries or []:
        has_keys = isinstance(entry, dict) and {"where", "metrics"} <= entry.keys() <= PUBLISHED
        if not (has_keys and isinstance(entry["where"], dict) and isinstance(entry["metrics"], dict)):
            raise UserError("published: an entry is {where: {key: value}, metrics: {metric: number}, n: N, source: S}")
        for name, value in entry["metrics"].items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"published: {name}: must be a number, not {value!r}")


def check_ranges(value: Any, key: str = "", limits: Mapping[str, Any] | None = None) -> None:
    """Check a value, and every value within it, against what `config_field` was given for its field."""
    prefix = f"{key}." if key else ""
    if dataclasses.is_dataclass(value):
        fields = {field.name: field.metadata for field in dataclasses.fields(value)}
        for name, item in vars(value).items():
            if name not in fields:  # added by `+key=value`, which OmegaConf allows in a typed config
                raise UserError(unknown_key(f"{prefix}{name}"))
            check_ranges(item, f"{prefix}{name}", fields[name])
    elif isinstance(value, dict):
        for name, item in value.items():
            check_ranges(item, f"{prefix}{name}")
    elif isinstance(value, list):
        for item in value:
            check_ranges(item, key, limits)
    elif value is not None:
        check_value(key, value, limits or {})


def check_value(key: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Check that a value is finite and within the limits of its field."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: must be a finite number")
    if (choices := limits.get("choices")) and value not in choices:
        raise UserError(f"{key}={value}: no such choice{nearest(str(value), choices)}; there are: {', '.join(choices)}")
    for name, holds in LIMITS.items():
        if limits.get(name) is not None and not holds(value, limits[name]):
            raise UserError(f"{key}={value}: must be {name.replace('_', ' ')} {limits[name]}")


def check_dataset(key: str, dataset: Any) -> None:
    """Check the section `dataset`, or `other_datasets.NAME`: `key` is the one that errors name."""
    if not isinstance(dataset, DatasetConfig):
        raise UserError(f"{key}: its YAML names no schema; begin it with `defaults: [_local, _self_]`")
    path = getattr(dataset, "path", None)
    if path is not None and not Path(path).exists():
        raise UserError(f"{key}.path={path}: no such file or folder")
    if dataset.share is not None:
        check_share(f"{key}.share", dataset.share)
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
                length = f"stages.{name}.{key}={getattr(stage, key)}"
                raise UserError(f"{length}: leaves no room for a prompt in the model's {longest} positions")
