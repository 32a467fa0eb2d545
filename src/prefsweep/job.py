"""A job: a config and its plan. Nothing that a run needs is imported, written or loaded to make one."""

import dataclasses
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefsweep import console
from prefsweep.compose import as_container
from prefsweep.config import Config, DatasetConfig, IMDBConfig, LocalConfig, RuntimeConfig, ScorerConfig, TrainedConfig
from prefsweep.data import sources
from prefsweep.errors import UserError
from prefsweep.hub import pinned
from prefsweep.pipeline.files import FileHashes
from prefsweep.pipeline.plan import Plan, make_plan
from prefsweep.pipeline.store import Store

TARGET = "evaluate"


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
        """The config as written to disk: without the stages that the method does not use."""
        whole = as_container(self.config)
        whole["stages"] = {name: stage for name, stage in whole["stages"].items() if name in self.plan.used}
        return whole


def prepare(overrides: list[str], config: Config) -> Job:
    """Planned and named."""
    runtime = config.runtime
    hashes = file_hashes(runtime)
    config = dataclasses.replace(config, dataset=pinned(config.dataset, Path(runtime.outputs), not runtime.dry_run))
    hash_content = ContentHash(hashes, config.dataset)
    configs = {field.name: getattr(config.stages, field.name) for field in dataclasses.fields(config.stages)}
    sections = {"model": config.model, "dataset": config.dataset, "reward": config.reward, "judge": config.judge}
    aliases = {
        "base": config.model.base,
        "reward_model": reward_stage(config.reward),
        "sampled_pairs": "pairs" if config.dataset.pairs == "sampled" else None,
    }
    plan = make_plan(config.method.pipeline, TARGET, configs, sections, aliases, hash_content)
    check_targets(plan)
    check_judge(plan, config)
    check_pairs(plan, config.dataset)
    _ = plan.identity  # now: from here on no file that names it may be edited under the run
    return Job(overrides, config, plan)


@dataclass(frozen=True)
class ContentHash:
    """What a path holds; of a dataset's folder only the files that are read. No closure: jobs are sent to processes."""

    hashes: FileHashes
    dataset: DatasetConfig

    def __call__(self, path: Path) -> str:
        ours = getattr(self.dataset, "path", None)
        files = sources.files_read(self.dataset) if ours is not None and path == Path(ours) else None
        return self.hashes.of_content(path) if files is None else self.hashes.of_several(files)


def reward_stage(reward: ScorerConfig) -> str | None:
    """The stage that makes the reward model; None for a scorer that is there already, which needs no stage."""
    return "reward" if isinstance(reward, TrainedConfig) and reward.path is None else None


def check_judge(plan: Plan, config: Config) -> None:
    """What was optimised does not decide the table: a policy learns the scorer's mistakes first."""
    seen = {name: stage.payload["sections"][name] for stage in plan.stages for name in stage.sections}
    if not config.method.same_judge and "reward" in seen and seen["reward"] == seen.get("judge"):
        raise UserError(
            f"scorer@judge={config.judge.name}: is the reward that the method trains on; choose another judge, or say "
            "method.same_judge=true to reproduce a paper that did so"
        )


def check_pairs(plan: Plan, dataset: Any) -> None:
    """Sampled pairs are ranked by the reward, so there are none to train it on."""
    if "reward" in plan.used and isinstance(dataset, IMDBConfig | LocalConfig) and dataset.pairs == "sampled":
        raise UserError(
            f"scorer@reward=trained: dataset={dataset.name} has no pairs to train it on; say "
            "scorer@reward=distilbert-imdb, or another that is there already"
        )


def check_targets(plan: Plan) -> None:
    """The module that builds a stage must be there. It is not imported: that would take seconds and may need torch."""
    for stage in plan.stages:
        module, _, function = stage.config._target_.rpartition(".")
        try:
            found = find_spec(module) if module and function else None
        except ImportError:
            found = None
        if found is None:
            raise UserError(
                f"stages.{stage.name}._target_={stage.config._target_}: no such module; say package.module.function"
            )


def file_hashes(runtime: RuntimeConfig) -> FileHashes:
    return FileHashes(Path(runtime.outputs) / ".file-hashes.json")


def store_of(runtime: RuntimeConfig) -> Store:
    return Store(Path(runtime.outputs) / "stages", file_hashes(runtime), say=console.say)
