"""Compose the overrides of a command line into a typed, checked `Config`; any mistake in them is one line.

1. The files: `conf/config.yaml`, and one file of each group (model, dataset, method, ...).
2. The values that the command line sets outside `stages`.
3. The stages that the method's graph names, each from `conf/stage/` with what the files above preset for it; presets
   for other stages are left out.
4. The values that the command line sets for these stages; those for other stages are left to `sweep.grid`.
5. Types, ranges and contradictions. Then the stages whose condition in the graph does not hold are left out too.

Only errors that Hydra and OmegaConf raise while they compose are turned into one line: a bug here keeps its traceback.
"""

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from prefsweep import config_folder
from prefsweep.config import overrides, schema
from prefsweep.config.architectures import ARCHITECTURES
from prefsweep.config.checks import check_sections, check_stages
from prefsweep.config.graph import check_pipeline, holds, needed_roles, stage_of
from prefsweep.config.hydra_errors import architecture_keys, known_keys, one_line_errors, unknown_key
from prefsweep.config.schema import Config
from prefsweep.config.stage import STAGES, StageMap, load_stages
from prefsweep.errors import UserError, nearest

OTHER = "other_datasets."
STAGE = "stages."


@contextmanager
def composing(config_dir: Path | None = None) -> Iterator[None]:
    """Set Hydra up for any number of `compose` calls; `config_dir` adds a folder of the user's own YAML."""
    schema.register()
    load_stages()
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder")
    GlobalHydra.instance().clear()
    for cached in (known_keys, composed_files, stage_file):
        cached.cache_clear()
    overrides.PARSED.clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


def compose(words: list[str], config_dir: Path | None = None) -> Config:
    """Return the checked config of one job, with the stages that it runs. Call inside `composing()`."""
    composed = compose_raw(words, config_dir)
    with one_line_errors():
        config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    config.stages = StageMap(config.stages)
    check_sections(config)
    roles = needed_roles(config.method.pipeline, config.method.target, lambda role, when: holds(config, role, when))
    used = {stage_of(role) for role in roles}
    config.stages = StageMap({name: values for name, values in config.stages.items() if name in used})
    check_stages(config)
    return config


def compose_raw(words: list[str], config_dir: Path | None) -> DictConfig:
    """Return the composed config of one job, unresolved and unchecked, with every stage of the graph."""
    with one_line_errors(yaml.MarkedYAMLError, ValueError, AssertionError):  # as Hydra raises for some files
        composed = compose_values(words, config_dir)
    with one_line_errors():
        add_datasets(composed, words, config_dir)
        type_architectures(composed)
    return composed


def compose_values(words: list[str], config_dir: Path | None) -> DictConfig:
    """Take steps 1 to 4."""
    parsed = overrides.parse(words)
    for override in parsed:
        overrides.check_choice(override)
    files = [override for override in parsed if overrides.chooses_file(override)]
    composed = copy.deepcopy(composed_files(tuple(str(override.input_line) for override in files), config_dir))
    values = [override for override in parsed if override not in files]
    of_stages = [override for override in values if f"{override.key_or_group}.".startswith(STAGE)]
    of_others = [override for override in values if override.key_or_group.startswith(OTHER)]
    apply(composed, [override for override in values if override not in of_stages + of_others])
    add_stages(composed, config_dir)
    apply(composed, [override for override in of_stages if sets_a_stage_of(composed, override)])
    return composed


@lru_cache(maxsize=256)
def composed_files(files: tuple[str, ...], config_dir: Path | None) -> DictConfig:
    """Compose the files alone, once for all jobs of a grid that choose the same.

    Reading them is most of the work. Hydra sets values after it has merged the files, so setting them on a copy of the
    result is the same at a fifth of the time. These are the steps of `hydra.compose`, from overrides that are parsed.
    """
    loader = overrides.loader()
    repository = CachingConfigRepository(loader.repository)
    if config_dir is not None:
        own_folder = overrides.parse([f"hydra.searchpath=[file://{config_dir.resolve()}]"])
        loader._process_config_searchpath(None, own_folder, repository)
    choices = overrides.parse(list(files))
    defaults = create_defaults_list(repository, "config", choices, prepend_hydra=False, skip_missing=False).defaults
    composed = loader._compose_config_from_defaults_list(defaults, repository)
    OmegaConf.set_struct(composed, True)
    return composed


def apply(composed: DictConfig, values: list[Override]) -> None:
    """Set values in a composed config, as Hydra does after it has merged the files."""
    for override in values:
        if isinstance(override.value(), dict):
            make_room(composed, override.key_or_group)
    overrides.loader()._apply_overrides_to_config(values, composed)


def make_room(composed: DictConfig, key: str) -> None:
    """Put an empty section where a typed one is null: OmegaConf cannot merge `key={...}` into null."""
    parent, _, last = key.rpartition(".")
    section = OmegaConf.select(composed, parent)
    node = section._get_node(last) if isinstance(section, DictConfig) and not section._is_none() else None
    if isinstance(node, DictConfig) and node._is_none() and dataclasses.is_dataclass(node._metadata.ref_type):
        section[last] = node._metadata.ref_type


def add_stages(composed: DictConfig, config_dir: Path | None) -> None:
    """Take step 3: replace the presets by the stages of the graph, each with what is preset for it."""
    presets = composed.stages
    for name in presets:
        if name not in STAGES:
            raise UserError(f"stages.{name}: preset by a file, but there is no such stage{nearest(str(name), STAGES)}")
    pipeline = OmegaConf.to_container(composed.method.pipeline, resolve=True)
    assert isinstance(pipeline, dict)
    check_pipeline(pipeline)  # type: ignore[arg-type]
    roles = needed_roles(pipeline, composed.method.target, lambda role, when: True)  # type: ignore[arg-type]
    with open_dict(composed):
        composed.stages = {}
        for name in dict.fromkeys(map(stage_of, roles)):
            composed.stages[name] = copy.deepcopy(stage_file(name, config_dir))
            if name in presets:
                composed.stages[name].merge_with(presets[name])


@lru_cache(maxsize=256)
def stage_file(name: str, config_dir: Path | None) -> DictConfig:
    """Return the values of `conf/stage/NAME.yaml` under the stage's schema."""
    if name not in STAGES:
        raise UserError(f"stages.{name}: no such stage{nearest(name, STAGES)}; docs/extending.md says how to add one")
    return merge_at(f"{STAGE}{name}", STAGES[name], read_stage_file(name, config_dir))


def read_stage_file(name: str, config_dir: Path | None) -> DictConfig:
    """Return a file of `conf/stage/` merged with those that its `defaults` list names.

    Hydra would do the same, but takes a tenth of a second a stage, which would be most of the time to compose.
    """
    folders = [folder for folder in (config_folder(), config_dir) if folder is not None]
    paths = [path for folder in folders if (path := folder / "stage" / f"{name}.yaml").is_file()]
    if not paths:
        raise UserError(f"stages.{name}: there is no stage/{name}.yaml in conf/ or in the folder of -cd")
    values = OmegaConf.load(paths[0])
    assert isinstance(values, DictConfig)
    files = [str(file) for file in values.pop("defaults", ["_self_"])]
    merged = OmegaConf.merge(*(values if file == "_self_" else read_stage_file(file, config_dir) for file in files))
    assert isinstance(merged, DictConfig)
    return merged


def sets_a_stage_of(composed: DictConfig, override: Override) -> bool:
    """Whether an override sets keys of stages that are in the graph; a key that no stage has is refused."""
    names = set()
    for key in stage_keys(override):
        name = key.split(".")[1]
        has_key = {key, key.rpartition(".")[0]} & known_keys() or architecture_keys(key)
        if name not in STAGES or not has_key:
            raise UserError(unknown_key(key if name in STAGES else f"{STAGE}{name}"))
        names.add(name)
    sets_section = override.key_or_group.count(".") < 2 and not override.is_delete()
    if sets_section and not isinstance(override.value(), dict):
        raise UserError(f"{override.key_or_group}: holds keys of its own; set {override.key_or_group}.<key>=...")
    return names <= set(composed.stages)


def stage_keys(override: Override) -> list[str]:
    """Return the keys below `stages.` that an override sets: `stages={sft:{...},dpo:{...}}` sets two."""
    value = override.value()
    if override.key_or_group == STAGE[:-1]:
        return [f"{STAGE}{name}" for name in value] if isinstance(value, dict) else []
    return [overrides.key_of(str(override.input_line))]


def add_datasets(composed: DictConfig, words: list[str], config_dir: Path | None) -> None:
    """Add the datasets that `evaluate_on` names, each from its file with the values set for `other_datasets.NAME`."""
    names = list(composed.evaluate_on)
    values = [word for word in words if word.startswith(OTHER)]
    for word in values:
        if word.removeprefix(OTHER).partition(".")[0] not in names:
            raise UserError(f"{word}: is for a dataset that evaluate_on does not name; set evaluate_on=[NAME] too")
    for name in names:
        if name == composed.dataset.get("name") or names.count(name) > 1:
            raise UserError(f"evaluate_on={name}: is the run's own dataset, or named twice; leave it out")
        prefix = f"{OTHER}{name}."
        own = [f"dataset.{word.removeprefix(prefix)}" for word in values if word.startswith(prefix)]
        try:
            with one_line_errors():
                other = compose_values([f"dataset={name}", *own], config_dir)
        except UserError as error:
            raise UserError(str(error).replace("dataset.", prefix).replace("dataset=", "evaluate_on=")) from error
        with open_dict(composed):
            composed.other_datasets[name] = other.dataset


def type_architectures(composed: DictConfig) -> None:
    """Give each architecture that is written out the schema of its own `model_type`."""
    owners = ["model", "reward", "judge", *(f"stages.{name}.encoder" for name in composed.stages)]
    for owner in owners:
        section = OmegaConf.select(composed, owner)
        for name in ("small", "architecture"):  # in this order, because `architecture` may refer to `small`
            node = section._get_node(name) if isinstance(section, DictConfig) else None
            if isinstance(node, DictConfig) and not (node._is_none() or node._is_interpolation()):
                section[name] = typed_architecture(node, f"{owner}.{name}")


def typed_architecture(node: DictConfig, key: str) -> DictConfig:
    """Return an architecture under the schema of its `model_type`."""
    kind = str(node.get("model_type"))
    if kind not in ARCHITECTURES:
        choices = f"{nearest(kind, ARCHITECTURES)}; there are: {', '.join(ARCHITECTURES)}"
        raise UserError(f"{key}.model_type={kind}: no such kind{choices}")
    return merge_at(key, ARCHITECTURES[kind], node)


def merge_at(key: str, *nodes: Any) -> DictConfig:
    """Merge nodes as if they lay at a dotted key, which the errors then name."""
    for part in reversed(key.split(".")):
        nodes = tuple({part: node} for node in nodes)
    return OmegaConf.select(OmegaConf.merge(*nodes), key)  # type: ignore[no-any-return]
