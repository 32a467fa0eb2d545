"""Words on the command line → one typed, checked `Config`; whatever is wrong with them becomes one line.

Only Hydra's and OmegaConf's own complaints are turned into a line, and only while they compose: a bug of ours keeps
its traceback.
"""

import copy
import dataclasses
import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
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
    composed_choices.cache_clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


def compose(overrides: list[str], config_dir: Path | None = None) -> Config:
    """The checked config of one job. Call inside `composing()`."""
    refuse_settings_of_hydra(overrides)
    try:
        composed = compose_raw(overrides, config_dir)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error, overrides)) from error
    except (yaml.MarkedYAMLError, ValueError, AssertionError) as error:
        raise UserError(untyped_complaint(error, overrides)) from error
    try:
        refuse_unknown_keys(composed)
        made = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise UserError(one_line(error, overrides)) from error
    assert isinstance(made, Config)
    check(made)
    return made


def compose_raw(overrides: list[str], config_dir: Path | None) -> DictConfig:
    """As Hydra composes it: interpolations not resolved, nothing checked."""
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    parsed = OverridesParser.create(loader).parse_overrides(overrides)
    settings = [override for override in parsed if not chooses(override, loader)]
    if any(override.is_sweep_override() for override in settings):
        return hydra_compose("config", overrides=overrides)  # which complains of several values
    chosen = tuple(str(override.input_line) for override in parsed if chooses(override, loader))
    composed = copy.deepcopy(composed_choices(chosen, config_dir))
    loader._apply_overrides_to_config(settings, composed)
    return composed


@lru_cache(maxsize=256)
def composed_choices(chosen: tuple[str, ...], config_dir: Path | None) -> DictConfig:
    """The files alone. The jobs of a grid choose few different ones, and reading them is most of the work: Hydra sets
    values after the files are merged, so setting them on a copy is the same, at a fifth of the time."""
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir else []
    return hydra_compose("config", overrides=[*chosen, *search])


def chooses(override: Override, loader: ConfigLoaderImpl) -> bool:
    """Whether it picks a file of a group, as Hydra decides it."""
    return loader.repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)


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


def refuse_settings_of_hydra(overrides: list[str]) -> None:
    """Only Hydra's Compose API runs here, which would pass over them in silence."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if re.match(r"hydra\b", key):
            raise UserError(f"{key}: settings of Hydra itself have no effect here")


def unknown_key(key: str) -> str:
    known = known_keys()
    if key in known:  # of another dataset or scorer
        return f"{key}: no such key in this {key.partition('.')[0]}, only in another"
    return f"{key}: no such key{nearest(key, known)}"


def known_keys() -> set[str]:
    """Every key of the schema, full and dotted; a dataset's are those of all datasets, and so are a scorer's."""
    kinds: list[tuple[type, str]] = [(Config, "")]
    kinds += [(kind, "dataset.") for kind in config.DATASETS.values()]
    kinds += [(kind, f"{role}.") for kind in config.SCORERS.values() for role in ("reward", "judge")]
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
    where = re.match(r"In '(.+?)': ", text)
    place = f"{where.group(1)}.yaml: " if where else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    what = lines[1] if "raised while composing" in lines[0] else lines[0].removeprefix(where.group(0) if where else "")
    return place + explain(what, key, text)


def explain(what: str, key: str, text: str) -> str:
    if re.match(r"Key '.*' (not in|is not in struct)", what):
        return unknown_key(key)
    if "missing mandatory value" in what.lower():
        missing = what.partition("Missing mandatory value: ")[2] or key
        return f"{missing}: has no value; say {missing}=..."
    if broken := re.match(r"Interpolation key '(.+)' not found", what):
        return f"{key}: {what}{nearest(broken.group(1), known_keys())}"
    if "is not a ListConfig" in what:
        return f"{key}: must be a list, as in {key}=[...]"
    if "is not a subclass of" in what:
        return f"{key}: holds keys of its own; say {key}.<key>=..., or choose a whole one by its group"
    quoted = what.split("'")[1] if "'" in what else key
    if what.startswith("Ambiguous value"):
        return f"{quoted}: several values make a sweep; add -m"
    if what.startswith("Could not append"):
        return f"{quoted}: is there already; say it without the +"
    if what.startswith("Could not override"):
        return unknown_group(quoted, text)
    return f"{key}: {what}" if key else what


def unknown_group(group: str, text: str) -> str:
    meant = re.search(r"Did you mean to override (?:one of )?(.+?)\?", text)
    return f"{group}: no such group" + (f" (nearest: {meant.group(1)})" if meant else nearest(group, groups()))


def untyped_complaint(error: Exception, overrides: list[str]) -> str:
    """Composing is Hydra's code alone, so these too are about what was said."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"{mark.name}, line {mark.line + 1}: " if mark else ""
        return f"{place}not YAML ({error.problem or error.context})"
    if str(error).startswith("Config group override must be a string"):  # method=null; it does not say which
        parsed = OverridesParser.create().parse_overrides(overrides)
        said = [word for word in parsed if word.key_or_group in groups() and not isinstance(word.value(), (str, list))]
        lines = " ".join(str(word.input_line) for word in said)
        return f"{lines}: a group takes the name of one of its choices; `prefsweep --help` lists them"
    if "Unexpected type for root" in str(error):
        inside = " ".join(word for word in overrides if word.lstrip("+").startswith("model.architecture."))
        return f"{inside}: this model is not made from nothing, so model.architecture is null"
    return str(error).splitlines()[0]


def groups() -> list[str]:
    return [folder.name for folder in config_folder().iterdir() if folder.is_dir()]


def unknown_choice(error: MissingConfigException) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    choices = [option for option in error.options or [] if not option.startswith("_")]
    if not group or not choices:
        return str(error).splitlines()[0]
    return f"{group}={choice}: no such {group}{nearest(choice, choices)}; there are: {', '.join(choices)}"
