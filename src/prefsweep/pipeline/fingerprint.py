"""The canonical form of a value, and its hash. Equal values have equal hashes; a value without canonical form raises.

The complete value is hashed, never its difference from a default: a changed default is a different computation.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

LENGTH = 16  # hex digits: 64 bits, no collision to be expected below a billion artifacts

Canonical = None | bool | int | float | str | list[Any] | dict[str, Any]


def fingerprint(value: Canonical) -> str:
    """Return the hash of a canonical value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def canonical(value: Any, hash_content: Callable[[Path], str], kind: Any = Any) -> Canonical:
    """Return `value` as plain JSON. `kind` is its type in the schema: where that is float, 1 and 1.0 are equal.

    `hash_content` identifies a file or folder by what it holds, for the fields with `is_content`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return canonical_fields(value, hash_content)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return canonical_number(value, kind)
    if isinstance(value, (list, tuple)):
        inner = kind_inside(kind, list, tuple)
        return [canonical(item, hash_content, inner) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"no canonical form for a dict with keys that are not strings: {value!r}")
        inner = kind_inside(kind, dict)
        return {key: canonical(item, hash_content, inner) for key, item in value.items()}
    raise TypeError(f"no canonical form for {type(value).__name__}: {value!r}")


def alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the types that a union allows; for any other type, the type itself."""
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def kind_inside(kind: Any, *outer: type) -> Any:
    """Return the type of a list's items or a dict's values: float for `dict[str, float] | None`."""
    for option in alternatives(kind):
        if typing.get_origin(option) in outer:
            return typing.get_args(option)[1 if dict in outer else 0]
    return Any


def canonical_number(value: int | float, kind: Any) -> int | float:
    if not isinstance(value, float) and float not in alternatives(kind):
        return value
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"no canonical form for {number}: such values do not compare equal")
    return number + 0.0  # −0.0 equals 0.0


def canonical_fields(value: Any, hash_content: Callable[[Path], str]) -> dict[str, Any]:
    """Return the fields of a dataclass that count, each as its metadata says (see `config.field.config_field`)."""
    kinds = typing.get_type_hints(type(value))
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
            form[field.name] = canonical(item, hash_content, kinds[field.name])
    return form
