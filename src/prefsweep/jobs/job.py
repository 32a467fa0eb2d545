"""A job: a config and its plan. Planning loads no model or data and imports no stage."""

import dataclasses
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefsweep.config.graph import WHEN, holds, needed_roles, stage_of
from prefsweep.config.schema import ABOUT_TRAINING_ROWS, Config, DatasetConfig, RuntimeConfig
from prefsweep.config.stage import StageConfig, StageMap
from prefsweep.data import sources
from prefsweep.errors import UserError, nearest
from prefsweep.hub import Repository, pinned, repository
from prefsweep.jobs import console
from prefsweep.jobs.plan_checks import check_plan
from prefsweep.pipeline.files import FileHashes
from prefsweep.pipeline.plan import Plan, make_plan
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Store

SECTIONS = ("model", "dataset", "reward", "judge")


@dataclass(frozen=True)
class Job:
    overrides: list[str]
    config: Config
    plan: Plan

    @property
    def name(self) -> str:
        """A short readable name, made unique by the hash of everything that is computed."""
        parts = (self.config.model.name, self.config.dataset.name, self.config.method.name, f"seed{self.config.seed}")
        readable = re.sub(r"[^A-Za-z0-9.+_-]", "-", "_".join(parts))[:100]
        return f"{readable}-{self.plan.identity[:8]}"

    @property
    def learns(self) -> bool:
        """Whether a stage of it trains on the rows that the dataset chooses."""
        stages = (stage.config for stage in self.plan.stages)
        return any(stage.learns_from(self.config.dataset) and not stage.own_rows for stage in stages)

    @property
    def resolved(self) -> dict[str, Any]:
        """The config as written to disk: without a choice of training rows where none is read."""
        container = dataclasses.asdict(self.config)
        container["stages"] = dict(container["stages"])  # a StageMap is no dict to OmegaConf
        if not self.learns:
            container["dataset"] |= dict.fromkeys(ABOUT_TRAINING_ROWS)
        return container


def prepare(overrides: list[str], config: Config) -> Job:
    """Plan a job. Look up the commit of repositories that have none yet, unless it is a dry run."""
    outputs = Path(config.runtime.outputs)
    config = with_commits(config, outputs, ())
    plan = plan_of(config)
    unpinned = [key for key, repo in repositories(config, plan.stages).items() if repo.revision is None]
    if unpinned and not config.runtime.dry_run:
        config = with_commits(config, outputs, unpinned)
        plan = plan_of(config)
    check_plan(plan, config)
    _ = plan.identity  # cached now: a local file edited from here on must not change what the run is called
    return Job(overrides, config, plan)


def plan_of(config: Config) -> Plan:
    method = config.method
    pipeline = with_other_datasets(method.pipeline, method.target, config)
    roles = needed_roles(pipeline, method.target, lambda role, when: holds(config, role, when))
    hash_content = ContentHash(file_hashes(config.runtime), (config.dataset, *config.other_datasets.values()))
    return make_plan(roles, config.stages, lambda role, stage: sections_of(config, role, stage), hash_content)


def sections_of(config: Config, role: str, stage: StageConfig) -> dict[str, Any]:
    """Return the parts of the config that the stage in this role reads."""
    for name in stage.reads:
        if name not in SECTIONS:
            raise UserError(f"stages.{stage_of(role)}.reads: no section {name}{nearest(name, SECTIONS)}")
    sections = {name: getattr(config, name) for name in stage.sections}
    if "dataset" in sections:
        dataset = config.other_datasets.get(role.rpartition("/")[2], config.dataset)
        # the runs of a learning curve share every stage that reads no training row
        rows = stage.own_rows if stage.learns_from(dataset) else dict.fromkeys(ABOUT_TRAINING_ROWS)
        sections["dataset"] = dataclasses.replace(dataset, **rows)
    return sections


def with_other_datasets(pipeline: Mapping[str, Any], target: str, config: Config) -> dict[str, Any]:
    """Return the graph with the roles that evaluate repeated for each other dataset, as in `generate/result/imdb`."""
    graph = dict(pipeline)
    repeated = repeated_roles(pipeline, target, config) if config.other_datasets else []
    for name in config.other_datasets:
        for role in repeated:
            left_out = config.stages[stage_of(role)].inputs_of_own_dataset
            inputs = {key: source for key, source in pipeline[role].items() if key not in left_out}
            graph[f"{role}/{name}"] = {
                key: f"{source}/{name}" if key != WHEN and source in repeated else source
                for key, source in inputs.items()
            }
        graph[target] = {**graph[target], f"also_{name}": f"{target}/{name}"}
    return graph


def repeated_roles(pipeline: Mapping[str, Any], target: str, config: Config) -> list[str]:
    """Return the roles that depend on the prompts: they read the dataset, or the output of a role that does."""
    repeated: list[str] = []
    for role, inputs in needed_roles(pipeline, target, lambda role, when: holds(config, role, when)).items():
        stage = config.stages[stage_of(role)]
        if stage.repeated_per_dataset and ("dataset" in stage.reads or set(inputs.values()) & set(repeated)):
            repeated.append(role)
    return repeated


def with_commits(config: Config, outputs: Path, unpinned: Container[str]) -> Config:
    """Return the config with the commit of each repository where it is known; ask the hub for those in `unpinned`."""

    def pin(sections: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        return {key: pinned(section, outputs, f"{prefix}{key}" in unpinned) for key, section in sections.items()}

    stages = {
        name: dataclasses.replace(stage, **pin(stage.hub_sections(), f"stages.{name}."))
        for name, stage in config.stages.items()
    }
    others = pin(config.other_datasets, "other_datasets.")
    sections = pin({name: getattr(config, name) for name in SECTIONS})
    return dataclasses.replace(config, stages=StageMap(stages), other_datasets=others, **sections)


def repositories(config: Config, stages: Sequence[Stage]) -> dict[str, Repository]:
    """Return the repositories on the hub that these stages read, by the key of the config that names them."""
    sections = {name: getattr(config, name) for stage in stages for name in stage.sections}
    sections |= {f"other_datasets.{name}": dataset for name, dataset in config.other_datasets.items()}
    for stage in stages:
        sections |= {f"stages.{stage.name}.{key}": section for key, section in stage.config.hub_sections().items()}
    return {key: repo for key, section in sections.items() if (repo := repository(section, key)) is not None}


@dataclass(frozen=True)
class ContentHash:
    """Hashes the content of a path; of a dataset's folder only the files that are read. Can be pickled."""

    hashes: FileHashes
    datasets: tuple[DatasetConfig, ...]

    def __call__(self, path: Path) -> str:
        datasets = [dataset for dataset in self.datasets if Path(getattr(dataset, "path", None) or "") == path]
        files = sources.files_read(datasets[0]) if datasets else None
        return self.hashes.of_content(path) if files is None else self.hashes.of_named_files(files)


def file_hashes(runtime: RuntimeConfig) -> FileHashes:
    return FileHashes(Path(runtime.outputs) / ".file-hashes.json")


def store_of(runtime: RuntimeConfig) -> Store:
    return Store(Path(runtime.outputs) / "stages", file_hashes(runtime), console.print_line)
