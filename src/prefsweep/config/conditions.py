"""Decide the conditions of a method's YAML: `when: dataset.pairs=generated`, `when: model.from_scratch`."""

import dataclasses
from typing import Any

from prefsweep.config.schema import Config, DatasetConfig
from prefsweep.errors import UserError, nearest


def holds(config: Config, role: str, condition: str) -> bool:
    """Whether a role's condition holds: `key=value` where the key has this value, `key` where its value is true.

    A key may also name a property of a section (`judge.is_trained_here`). In a role whose part is the name of another
    dataset, as `judge_accuracy/imdb`, `dataset` means that one. A key of a stage that the method does not run is false.
    """
    key, _, value = condition.partition("=")
    current = value_at(for_dataset(config, role), key, f"method.pipeline.{role}.when={condition}")
    return str(current) == value if value else bool(current)


def for_dataset(config: Config, role: str) -> Config:
    """Return the config with the dataset of `evaluate_on` that a role's part names, or unchanged."""
    other: DatasetConfig | None = config.other_datasets.get(role.rpartition("/")[2])
    return config if other is None else dataclasses.replace(config, dataset=other)


def value_at(config: Config, key: str, where: str) -> Any:
    """Return the value at a dotted key; `where` begins the error for a key that does not exist."""
    section, _, rest = key.partition(".")
    current: Any = config
    if section == "stages":
        name, _, rest = rest.partition(".")
        current = config.stages.get(name)
        if current is None:
            return None
    else:
        rest = key
    for part in rest.split("."):
        if not hasattr(current, part):
            raise UserError(f"{where}: no such key{nearest(part, [name for name in dir(current) if name[0] != '_'])}")
        current = getattr(current, part)
    return current
