"""`config_field`: a field of a typed config, with the range of its value and how it enters an identity."""

import dataclasses
from typing import Any

from omegaconf import MISSING


def config_field(
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    hashed: bool = True,
    is_content: bool = False,
    unless: str | None = None,
    only_with: str | None = None,
) -> Any:
    """Return a dataclass field without a default: its value must come from YAML or the command line.

    `above`, `at_least`, `below`, `at_most` and `choices` are checked before anything starts; in a list, for each item.
    `hashed=False` leaves the field out of every identity, because it changes no result.
    `is_content=True` puts the hash of a file or folder into the identity, in place of its path.
    `unless="path"` leaves the field out of the identity where the field `path` is set.
    `only_with="lora"` leaves the field out of the identity unless the field `lora` is true.
    """
    return dataclasses.field(default=MISSING, metadata=locals())
