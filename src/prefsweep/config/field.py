"""`config_field`: a field of a typed config, with the range of its value and how it enters an identity."""

import dataclasses
from typing import Any

from omegaconf import MISSING

NO_DEFAULT: Any = object()


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
    legacy_default: Any = NO_DEFAULT,
) -> Any:
    """Return a dataclass field without a default: its value must come from YAML or the command line.

    `above`, `at_least`, `below`, `at_most` and `choices` are checked before anything starts; in a list, for each item.
    `hashed=False` leaves the field out of every identity, because it changes no result.
    `is_content=True` puts the hash of a file or folder into the identity, in place of its path.
    `unless="path"` leaves the field out of the identity where the field `path` is set.
    `only_with="lora"` leaves the field out of the identity unless the field `lora` is true.
    `legacy_default=x`, for a field that is added later, leaves it out of the identity while its value is x. With x the
    behaviour from before the field existed, everything that was built then stays valid.
    """
    ranges: dict[str, Any] = {
        "above": above,
        "at_least": at_least,
        "below": below,
        "at_most": at_most,
        "choices": choices,
    }
    metadata = {name: value for name, value in ranges.items() if value is not None}
    metadata |= {"hashed": hashed, "is_content": is_content, "unless": unless, "only_with": only_with}
    if legacy_default is not NO_DEFAULT:
        metadata["legacy_default"] = legacy_default
    return dataclasses.field(default=MISSING, metadata=metadata)
