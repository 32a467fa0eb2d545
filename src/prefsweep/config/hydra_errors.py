"""The errors of Hydra and OmegaConf as one line: the key, what is wrong with it, what to type instead."""

import dataclasses
import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from prefsweep import config_folder
from prefsweep.config import schema
from prefsweep.config.architectures import ARCHITECTURES
from prefsweep.config.schema import Config
from prefsweep.config.stage import STAGES
from prefsweep.errors import UserError, nearest


@contextmanager
def one_line_errors(*untyped: type[Exception]) -> Iterator[None]:
    """Raise the errors of Hydra and OmegaConf, and those of the `untyped` classes, as a `UserError` of one line."""
    kinds: tuple[type[Exception], ...] = (HydraException, OmegaConfBaseException, *untyped)
    try:
        yield
    except kinds as error:
        raise UserError(one_line(error)) from error


def unknown_key(key: str) -> str:
    known = known_keys()
    if key in known and re.match(r".*\b(architecture|small)\.", key):
        return f"{key}: no such key here: the architecture is null, or of another model_type"
    if key in known:  # of another dataset or scorer
        return f"{key}: no such key in this {key.partition('.')[0]}, only in another"
    return f"{key}: no such key{nearest(key, known)}"


@lru_cache(maxsize=1)
def known_keys() -> frozenset[str]:
    """Return every key of the schema, full and dotted; a dataset's are those of all datasets, and so are a scorer's,
    a stage's and an architecture's."""
    kinds: list[tuple[type, str]] = [(Config, "")]
    kinds += [(kind, f"stages.{name}.") for name, kind in STAGES.items()]
    kinds += [(kind, "dataset.") for kind in schema.DATASETS.values()]
    kinds += [(kind, f"{role}.") for kind in schema.SCORERS.values() for role in ("reward", "judge")]
    keys = {key for kind, prefix in kinds for key in keys_of(kind, prefix)} | {f"stages.{name}" for name in STAGES}
    shapes = [key for key in keys if key.endswith((".architecture", ".small"))]
    return frozenset(keys | {f"{key}.{name}" for key in shapes for name in architecture_keys(key)})


def architecture_keys(key: str) -> set[str]:
    """Return the fields that an architecture at this key may have; none where the key is no architecture's."""
    if not re.search(r"\.(architecture|small)(\.|$)", key):
        return set()
    return {field.name for kind in ARCHITECTURES.values() for field in dataclasses.fields(kind)}


def keys_of(kind: Any, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield prefix + field.name
        for inner in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(inner):
                yield from keys_of(inner, f"{prefix}{field.name}.")


def one_line(error: Exception) -> str:
    """Return an error that was raised while Hydra composed as one line."""
    if isinstance(error, MissingConfigException):
        return unknown_choice(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as key=value; put quotes around values with special characters"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        position = f"{mark.name}, line {mark.line + 1}: " if mark else ""
        return f"{position}not YAML ({error.problem or error.context})"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = str(cause)
    full_key = re.search(r"full_key: (\S+)", text)
    # "In 'stage/dpo': ConfigKeyError raised while composing config:" names the file that is wrong.
    prefix = re.match(r"In '(.+?)': ", text)
    file = f"{prefix[1]}.yaml: " if prefix else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    message = lines[1] if "raised while composing" in lines[0] else lines[0].removeprefix(prefix[0] if prefix else "")
    return file + explain(message, full_key[1] if full_key else "", text)


def explain(message: str, key: str, text: str) -> str:
    """Return the line for a message of OmegaConf's about a key; `text` is the whole error."""
    if re.match(r"Key '.*' (not in|is not in struct)", message):
        return unknown_key(key)
    if "missing mandatory value" in message.lower():
        missing = message.partition("Missing mandatory value: ")[2] or key
        return f"{missing}: has no value; set {missing}=..."
    if broken := re.match(r"Interpolation key '(.+)' not found", message):
        return f"{key}: {message}{nearest(broken[1], known_keys())}"
    if "is not a ListConfig" in message:
        return f"{key}: must be a list, as in {key}=[...]"
    if "is not a subclass of" in message:
        return f"{key}: holds keys of its own; set {key}.<key>=..., or choose a whole section by its group"
    quoted = message.split("'")[1] if "'" in message else key
    if message.startswith("Could not append"):
        return f"{quoted}: exists already; set it without the +"
    if message.startswith("Could not override"):
        suggestion = re.search(r"Did you mean to override (?:one of )?(.+?)\?", text)
        groups = [folder.name for folder in config_folder().glob("[!_.]*/")]
        return f"{quoted}: no such group" + (f" (nearest: {suggestion[1]})" if suggestion else nearest(quoted, groups))
    return f"{key}: {message}" if key else message


def unknown_choice(error: MissingConfigException) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    choices = [option for option in error.options or [] if not option.startswith("_")]
    if not group or not choices:
        return str(error).splitlines()[0]
    return f"{group}={choice}: no such {group}{nearest(choice, choices)}; there are: {', '.join(choices)}"
