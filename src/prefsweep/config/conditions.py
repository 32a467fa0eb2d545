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
    other: DatasetConfig | None = config.other_datasets.get(role.rpartition("/")[2])
    current: Any = dataclasses.replace(config, dataset=other) if other else config
    for part in key.split("."):
        if current is config.stages and part not in current:
            return False
        if not hasattr(current, part):
            names = [name for name in dir(current) if not name.startswith("_")]
            raise UserError(f"method.pipeline.{role}.when={condition}: no such key{nearest(part, names)}")
        current = getattr(current, part)
    return str(current) == value if value else bool(current)
