"""The conditions of a method's YAML: `when: dataset.pairs=generated`, `when: model.from_scratch`."""

import dataclasses
from typing import Any

from prefsweep.config.schema import Config, DatasetConfig
from prefsweep.errors import UserError, nearest


def holds(config: Config, role: str, condition: str) -> bool:
    """Whether a role's condition is true of this config: a key that has the value, or is true where none is named.

    In a role that ends in the name of another dataset, as `judge_accuracy/imdb`, `dataset` means that one. A stage that
    the method does not run has no property that is true.
    """
    key, _, value = condition.partition("=")
    current = value_at(for_dataset(config, role), key, f"method.pipeline.{role}.when={condition}")
    return str(current) == value if value else bool(current)


def for_dataset(config: Config, role: str) -> Config:
    other: DatasetConfig | None = config.other_datasets.get(role.rpartition("/")[2])
    return config if other is None else dataclasses.replace(config, dataset=other)


def value_at(config: Config, key: str, where: str) -> Any:
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
