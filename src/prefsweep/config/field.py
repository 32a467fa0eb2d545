"""How a field of a config says its range, and how it enters an identity."""

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
    """A config field whose value must come from YAML or the command line.

    `above`, `at_least`, `below`, `at_most`, `choices` are checked before anything starts.
    `in_identity=False` keeps a nickname out of every identity.
    `is_content=True` names a file or folder by the hash of what it holds, never by its path.
    `unless="path"` leaves the field out of the identity when the field `path` is set.
    `only_with="lora"` leaves the field out of the identity unless the field `lora` is true.
    `absent_equals=x` (for a field added later) leaves the field out of the identity while its value is x, the old
    behaviour, so that what was built before the field existed stays valid.
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
