"""Words on the command line → one typed, checked `Config`; whatever is wrong with them becomes one line.

Only Hydra's and OmegaConf's own complaints are turned into a line, and only while they compose: a bug of ours keeps
its traceback.
"""

import copy
import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from prefsweep import config_folder
from prefsweep.config import schema
from prefsweep.config.architectures import ARCHITECTURES, WITH_ARCHITECTURE
from prefsweep.config.checks import check
from prefsweep.config.hydra_errors import one_line, unknown_key, untyped_complaint
from prefsweep.config.schema import Config
from prefsweep.errors import UserError, nearest

ALSO = "other_datasets."


@contextmanager
def composing(config_dir: Path | None = None) -> Iterator[None]:
    """Hydra set up once for any number of `compose` calls; `config_dir` adds a folder of the user's own YAML."""
    schema.register()
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
        add_datasets(composed, overrides, config_dir)
        refuse_unknown_keys(composed)
        type_architectures(composed)
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
    settings = [override for override in settings if not override.key_or_group.startswith(ALSO)]
    for override in settings:
        if isinstance(override.value(), dict):
            make_room(composed, override.get_key_element().lstrip("+~"))
    loader._apply_overrides_to_config(settings, composed)
    return composed


def add_datasets(composed: DictConfig, overrides: list[str], config_dir: Path | None) -> None:
    """The datasets that `stages.evaluate.other_datasets` names, as their own files have them, with what was said of them."""
    names = list(composed.stages.evaluate.other_datasets)
    there = {file.stem for folder in group_folders("dataset", config_dir) for file in folder.glob("[!_]*.yaml")}
    said = [word for word in overrides if word.startswith(ALSO)]
    for word in said:
        if word.removeprefix(ALSO).partition(".")[0] not in names:
            raise UserError(
                f"{word}: names no dataset of stages.evaluate.other_datasets; say stages.evaluate.other_datasets=[NAME] too"
            )
    for name in names:
        if name not in there:
            raise UserError(f"stages.evaluate.other_datasets={name}: no such dataset{nearest(name, there)}")
        if name == composed.dataset.get("name") or names.count(name) > 1:
            raise UserError(
                f"stages.evaluate.other_datasets={name}: is the run's own dataset, or named twice; leave it out"
            )
        prefix = f"{ALSO}{name}."
        own = [f"dataset.{word.removeprefix(prefix)}" for word in said if word.startswith(prefix)]
        try:
            other = compose_raw([f"dataset={name}", *own], config_dir)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(one_line(error, own).replace("dataset.", prefix)) from error
        with open_dict(composed):
            composed.other_datasets[name] = other.dataset


def group_folders(group: str, config_dir: Path | None) -> Iterator[Path]:
    yield config_folder() / group
    if config_dir is not None:
        yield config_dir / group


def make_room(composed: DictConfig, key: str) -> None:
    """Where a typed section is null, an empty one: OmegaConf cannot merge `key={...}` into null."""
    parent, _, last = key.rpartition(".")
    place = OmegaConf.select(composed, parent) if parent else composed
    node = place._get_node(last) if isinstance(place, DictConfig) and not place._is_none() else None
    if isinstance(node, DictConfig) and node._is_none() and dataclasses.is_dataclass(node._metadata.ref_type):
        place[last] = node._metadata.ref_type


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


def type_architectures(composed: DictConfig) -> None:
    """Each architecture that is written out gets the schema of its own `model_type`; `small` first, as the other may
    refer to it."""
    for place in WITH_ARCHITECTURE:
        section = OmegaConf.select(composed, place)
        for name in ("small", "architecture"):
            node = section._get_node(name) if isinstance(section, DictConfig) else None
            if isinstance(node, DictConfig) and not (node._is_none() or node._is_interpolation()):
                section[name] = typed_architecture(node, f"{place}.{name}")


def typed_architecture(node: DictConfig, key: str) -> DictConfig:
    kind, known = str(node.get("model_type")), ARCHITECTURES
    if kind not in known:
        raise UserError(f"{key}.model_type={kind}: no such kind{nearest(kind, known)}; there are: {', '.join(known)}")
    schema: DictConfig = OmegaConf.structured(known[kind])
    for name, value in ((str(name), value) for name, value in node.items()):
        try:
            schema[name] = value
        except OmegaConfBaseException as error:
            raise UserError(one_line(error, []).replace(name, f"{key}.{name}", 1)) from error
    return schema


def refuse_settings_of_hydra(overrides: list[str]) -> None:
    """Only Hydra's Compose API runs here, which would pass over them in silence."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if re.match(r"hydra\b", key):
            raise UserError(f"{key}: settings of Hydra itself have no effect here")
