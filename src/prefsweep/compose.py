"""Words on the command line → one typed, checked `Config`; whatever is wrong with them becomes one line.

Only Hydra's and OmegaConf's own complaints are turned into a line, and only while they compose: a bug of ours keeps
its traceback.
"""

import dataclasses
import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prefsweep import config, config_folder
from prefsweep.checks import check
from prefsweep.config import Config
from prefsweep.errors import UserError, nearest


@contextmanager
def composing(config_dir: Path | None = None) -> Iterator[None]:
    """Hydra set up once for any number of `compose` calls; `config_dir` adds a folder of the user's own YAML."""
    config.register()
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


def compose(overrides: list[str], config_dir: Path | None = None) -> Config:
    """The checked config of one job. Call inside `composing()`."""
    try:
        composed = compose_raw(overrides, config_dir)
        refuse_unknown_keys(composed)
        made = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error, overrides)) from error
    assert isinstance(made, Config)
    check(made)
    return made


def compose_raw(overrides: list[str], config_dir: Path | None) -> DictConfig:
    """As Hydra composes it: interpolations not resolved, nothing checked."""
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir else []
    return hydra_compose("config", overrides=[*overrides, *search])


def as_container(made: Config) -> dict[str, Any]:
    """The resolved config as plain dicts and lists, as it is written to disk and sent to the tracker."""
    return dataclasses.asdict(made)


def refuse_unknown_keys(node: Any, path: str = "") -> None:
    """Hydra lets `+key=value` add to a typed config; we do not."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return
    kind = OmegaConf.get_type(node)
    known = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else None
    for key in map(str, node):
        full = f"{path}{key}"
        if known is not None and key not in known:
            raise UserError(unknown_key(full))
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            refuse_unknown_keys(node[key], f"{full}.")


def unknown_key(key: str) -> str:
    return f"{key}: no such key{nearest(key, known_keys())}"


def known_keys() -> set[str]:
    """Every key of the schema, full and dotted; a dataset's are those of all datasets."""
    kinds = [(Config, "")] + [(kind, "dataset.") for kind in config.DATASETS.values()]
    return {key for kind, prefix in kinds for key in keys_of(kind, prefix)}


def keys_of(kind: Any, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield prefix + field.name
        for inner in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(inner):
                yield from keys_of(inner, f"{prefix}{field.name}.")


def one_line(error: Exception, overrides: list[str]) -> str:
    """What Hydra or OmegaConf said in many lines, in one: the key, what is wrong with it, what to type instead."""
    if isinstance(error, MissingConfigException):
        return unknown_choice(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as key=value; put quotes around values with special characters"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = str(cause)
    found = re.search(r"full_key: (\S+)", text)
    key = found.group(1) if found else ""
    # "In 'stage/dpo': ConfigKeyError raised while composing config:" names the file that is wrong
    where = re.match(r"In '(.+?)'.*raised while composing", text)
    place = f"conf/{where.group(1)}.yaml: " if where else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    what = lines[1] if where and len(lines) > 1 else lines[0]
    if re.match(r"Key '.*' (not in|is not in struct)", what):
        return place + unknown_key(key)
    if "missing mandatory value" in what.lower():
        return f"{place}{key}: has no value; say {key}=..."
    if "is not a ListConfig" in what:
        return f"{place}{key}: must be a list, as in {key}=[...]"
    if what.startswith("Ambiguous value"):
        return f"{what.split(chr(39))[1]}: several values make a sweep; add -m"
    return f"{place}{key}: {what}" if key else what


def unknown_choice(error: MissingConfigException) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    choices = [option for option in error.options or [] if not option.startswith("_")]
    if not group or not choices:
        return str(error).splitlines()[0]
    return f"{group}={choice}: no such {group}{nearest(choice, choices)}; there are: {', '.join(choices)}"
