"""A job: a config and its plan. Nothing that a run needs is imported, written or loaded to make one."""

import dataclasses
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefsweep.config.compose import as_container
from prefsweep.config.schema import Config, DatasetConfig, RuntimeConfig, ScorerConfig, TrainedConfig, learns
from prefsweep.config.stages import OnPolicyConfig, PolicyTrainingConfig, StageConfig
from prefsweep.data import sources
from prefsweep.hub import Repository, pinned, repository
from prefsweep.jobs import console
from prefsweep.jobs.plan_checks import check_plan
from prefsweep.pipeline.files import FileHashes
from prefsweep.pipeline.plan import Plan, make_plan
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Store

TARGET = "evaluate"
ASKED_AGAIN = (
    "generate",
    "judge_completions",
    "judge_accuracy",
    "evaluate",
)  # the stages that read prompts which no training saw
SECTIONS = ("model", "dataset", "reward", "judge")
ENCODED = ("reward_model", "judge_model")  # the stages that may start from an encoder


@dataclass(frozen=True)
class Job:
    overrides: list[str]
    config: Config
    plan: Plan

    @property
    def name(self) -> str:
        """Short, readable, and told apart by the hash of all that is computed."""
        parts = (self.config.model.name, self.config.dataset.name, self.config.method.name, f"seed{self.config.seed}")
        readable = re.sub(r"[^A-Za-z0-9.+_-]", "-", "_".join(parts))[:100]
        return f"{readable}-{self.plan.identity[:8]}"

    @property
    def resolved(self) -> dict[str, Any]:
        """The config as written to disk: without the stages that are not used, nor a limit that limits none."""
        whole = as_container(self.config)
        if not any(learns(stage.config, self.config.dataset) for stage in self.plan.stages):
            whole["dataset"]["max_train_samples"] = None
        whole["stages"] = {name: stage for name, stage in whole["stages"].items() if name in self.plan.used}
        return whole


def prepare(overrides: list[str], config: Config) -> Job:
    """Planned and named. What the plan reads at no known commit gets one, unless it is only to be looked at."""
    outputs = Path(config.runtime.outputs)
    config = at_commits(config, outputs, ())
    plan = plan_of(config)
    unknown = [name for name, found in repositories(config, plan.stages).items() if found.revision is None]
    if unknown and not config.runtime.dry_run:
        config = at_commits(config, outputs, unknown)
        plan = plan_of(config)
    check_plan(plan, config)
    _ = plan.identity  # now: from here on no file that names it may be edited under the run
    return Job(overrides, config, plan)


def plan_of(config: Config) -> Plan:
    hash_content = ContentHash(file_hashes(config.runtime), (config.dataset, *config.other_datasets.values()))
    configs = {field.name: getattr(config.stages, field.name) for field in dataclasses.fields(config.stages)}
    sections = {name: getattr(config, name) for name in SECTIONS}
    start = config.method.start
    aliases = {
        "base": config.model.base,
        "reward_model": trained_by("reward_model", config.reward),
        "judge_model": trained_by("judge_model", config.judge),
        "judge_start": config.model.base if config.stages.judge_model.backbone == "policy" else None,
        "judged_pairs": "judge_accuracy" if config.dataset.pairs == "dataset" else None,
        "sampled_pairs": "generate_pairs" if config.dataset.pairs == "generated" else None,
        "limited": config.model.base if "base" in (config.stages.evaluate.frontier_of, start) else start,
        "limit_or_none": "frontier" if config.stages.evaluate.frontier else None,
        "validate_or_none": "judge_validation" if generates_while_training(config, config.method.result) else None,
        "pairs_ranked": "frontier_rewards" if config.dataset.pairs == "generated" else None,
    }
    others = {name: {"dataset": dataset} for name, dataset in config.other_datasets.items()}
    graph = on_other_prompts(config.method.pipeline, config.other_datasets)
    return make_plan(graph, TARGET, configs, sections, aliases, hash_content, others, as_seen_by)


def generates_while_training(config: Config, role: str) -> bool:
    """Whether the stage in this role leaves answers of its validations."""
    stage = getattr(config.stages, role.partition("/")[0], None)
    return isinstance(stage, OnPolicyConfig | PolicyTrainingConfig) and stage.validation_prompts > 0


def as_seen_by(stage: StageConfig, section: Any) -> Any:
    """Datasets that differ in their limit alone are one to a stage that reads no training row: it is shared by the runs
    of a learning curve."""
    if not isinstance(section, DatasetConfig) or learns(stage, section):
        return section
    return dataclasses.replace(section, max_train_samples=None)


def on_other_prompts(graph: dict[str, Any], also: dict[str, DatasetConfig]) -> dict[str, Any]:
    """The graph with its evaluating half once more for each other dataset: `generate/result/imdb`, and so on."""
    whole = dict(graph)
    again = [role for role in graph if role.partition("/")[0] in ASKED_AGAIN and role != "judge_completions/frontier"]
    for name, dataset in also.items():
        judged = f"judge_accuracy/{name}" if dataset.pairs == "dataset" else None
        renamed: dict[str, str | None] = {role: f"{role}/{name}" for role in again}
        renamed |= {"limit_or_none": None, "validate_or_none": None, "judged_pairs": judged}
        for role in again:
            inputs = {key: renamed.get(source, source) for key, source in graph[role].items()}
            whole[f"{role}/{name}"] = {key: source for key, source in inputs.items() if source is not None}
        whole[TARGET] = {**whole[TARGET], f"also_{name}": f"{TARGET}/{name}"}
    return whole


def at_commits(config: Config, outputs: Path, ask: Container[str]) -> Config:
    """With the commit of each repository that it names, where it is known; of those in `ask`, the hub is asked."""
    stages = config.stages
    for name in ENCODED:
        stage = getattr(stages, name)
        encoder = pinned(stage.encoder, outputs, encoder_of(name) in ask)
        stages = dataclasses.replace(stages, **{name: dataclasses.replace(stage, encoder=encoder)})
    found = {name: pinned(getattr(config, name), outputs, name in ask) for name in SECTIONS}
    also = {
        name: pinned(dataset, outputs, f"other_datasets.{name}" in ask)
        for name, dataset in config.other_datasets.items()
    }
    return dataclasses.replace(config, stages=stages, other_datasets=also, **found)


def repositories(config: Config, stages: Sequence[Stage]) -> dict[str, Repository]:
    """Those of the hub that these stages read, by the section of the config that names them."""
    sections = {name: getattr(config, name) for stage in stages for name in stage.sections}
    sections |= {f"other_datasets.{name}": dataset for name, dataset in config.other_datasets.items()}
    for name in ENCODED:
        if any(stage.name == name and stage.config.backbone == "encoder" for stage in stages):
            sections[encoder_of(name)] = getattr(config.stages, name).encoder
    found = {name: repository(section, name) for name, section in sections.items()}
    return {name: where for name, where in found.items() if where is not None}


def encoder_of(stage: str) -> str:
    return f"stages.{stage}.encoder"


@dataclass(frozen=True)
class ContentHash:
    """What a path holds; of a dataset's folder only the files that are read. No closure: jobs are sent to processes."""

    hashes: FileHashes
    datasets: tuple[DatasetConfig, ...]

    def __call__(self, path: Path) -> str:
        ours = [each for each in self.datasets if Path(getattr(each, "path", None) or "") == path]
        files = sources.files_read(ours[0]) if ours else None
        return self.hashes.of_content(path) if files is None else self.hashes.of_several(files)


def trained_by(stage: str, scorer: ScorerConfig) -> str | None:
    """The stage that makes the scorer's model; None for a scorer that is there already, which needs no stage."""
    return stage if isinstance(scorer, TrainedConfig) and scorer.path is None else None


def file_hashes(runtime: RuntimeConfig) -> FileHashes:
    return FileHashes(Path(runtime.outputs) / ".file-hashes.json")


def store_of(runtime: RuntimeConfig) -> Store:
    return Store(Path(runtime.outputs) / "stages", file_hashes(runtime), say=console.say)
