"""The canonical form of a value, and its hash. Equal values have equal hashes; a value without canonical form raises.

The complete value is hashed, never its difference from a default: a changed default is a different computation.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

LENGTH = 16  # hex digits: 64 bits, no collision to be expected below a billion artifacts

Canonical = None | bool | int | float | str | list[Any] | dict[str, Any]


def fingerprint(value: Canonical) -> str:
    """Return the hash of a canonical value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def canonical(value: Any, hash_content: Callable[[Path], str]) -> Canonical:
    """Return `value` as plain JSON. A composed config has floats wherever its schema says so: `beta=1` is 1.0 there.

    `hash_content` identifies a file or folder by what it holds, for the fields with `is_content`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return canonical_fields(value, hash_content)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"no canonical form for {value}: such values do not compare equal")
        return value + 0.0  # −0.0 equals 0.0
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, (list, tuple)):
        return [canonical(item, hash_content) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"no canonical form for a dict with keys that are not strings: {value!r}")
        return {key: canonical(item, hash_content) for key, item in value.items()}
    raise TypeError(f"no canonical form for {type(value).__name__}: {value!r}")


def canonical_fields(value: Any, hash_content: Callable[[Path], str]) -> dict[str, Any]:
    """Return the fields of a dataclass that count, each as its metadata says (see `config.field.config_field`)."""
    form: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item, rules = getattr(value, field.name), field.metadata
        if not rules.get("hashed", True):
            continue
        if rules.get("unless") and getattr(value, rules["unless"]) is not None:
            continue
        if rules.get("only_with") and not getattr(value, rules["only_with"]):
            continue
        if rules.get("is_content") and item is not None:
            form[field.name] = hash_content(Path(item))
        else:
            form[field.name] = canonical(item, hash_content)
    return form
