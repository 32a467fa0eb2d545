"""One job: a config → its plan → its stages → run.json."""

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from prefsweep import console
from prefsweep.compose import as_container
from prefsweep.config import Config, RuntimeConfig, ScorerConfig, TrainedConfig
from prefsweep.errors import DivergedError, UserError
from prefsweep.pipeline import runner
from prefsweep.pipeline.files import FileHashes, write_json, write_text
from prefsweep.pipeline.plan import Plan, make_plan
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Record, Store
from prefsweep.tracking import JobCard, tracking

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
    """Planned and named; nothing imported, written or loaded that a run needs."""
    hashes = file_hashes(config.runtime)
    configs = {field.name: getattr(config.stages, field.name) for field in dataclasses.fields(config.stages)}
    sections = {"model": config.model, "dataset": config.dataset, "reward": config.reward, "judge": config.judge}
    aliases = {"base": config.model.base, "reward_model": reward_stage(config.reward)}
    plan = make_plan(config.method.pipeline, TARGET, configs, sections, aliases, hashes.of_content)
    check_targets(plan)
    check_judge(plan, config)
    _ = plan.identity  # now: from here on no file that names it may be edited under the run
    return Job(overrides, config, plan)


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


def unused_keys(job: Job) -> list[str]:
    """The overrides that set a key of a stage that the job does not run."""
    known = {field.name for field in dataclasses.fields(job.config.stages)}
    keys = [(override, override.lstrip("+~").partition("=")[0].split(".")) for override in job.overrides]
    return [
        override
        for override, path in keys
        if path[0] == "stages" and len(path) > 1 and path[1] in known - job.plan.used
    ]


def refuse_unused(job: Job) -> None:
    for override in unused_keys(job):
        key = override.partition("=")[0]
        used = ", ".join(sorted(job.plan.used))
        raise UserError(f"{key}: method={job.config.method.name} does not run that stage; it runs {used}")


def execute(job: Job, folder: Path, group: str | None = None, share: int = 1, silent: bool = False) -> None:
    """Run the job; whatever happens, `folder/run.json` says how it ended. `share` jobs use this machine at once."""
    store = store_of(job.config.runtime)
    todo = runner.missing(job.plan, store)
    state = RunFile(job, folder)
    state.write("running")
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(job.resolved)))
    try:
        with ExitStack() as stack:
            settings = job.config.tracking
            if not todo:  # a job with nothing to do leaves no run behind
                settings = dataclasses.replace(settings, enabled=False)
            tracker = stack.enter_context(tracking(settings, card(job, group), console.say))
            state.listeners = [tracker] if silent else [console.Listener(), tracker]
            if todo:
                share_threads(job.config.runtime, share)
            records = runner.run(job.plan, store, job.config.runtime, state)
            reason = diverged(records)
            state.write("diverged" if reason else "finished", records, reason)
            if reason:
                console.say(f"diverged: {reason}")
            tracker.summary(state.metrics)
            tracker.samples(judged_samples(store.folder(job.plan.target) / "samples.jsonl"))
    except DivergedError as error:
        state.write("diverged", error=str(error))
        raise
    except BaseException as error:
        state.write("failed", error=f"{type(error).__name__}: {error}".strip().splitlines()[-1])
        raise


def diverged(records: dict[str, Record]) -> str | None:
    """Why, where a training stage stopped itself: its last finite state was judged like any other."""
    reasons = [record["metrics"]["diverged"] for record in records.values() if "diverged" in record["metrics"]]
    return "; ".join(reasons) or None


def judged_samples(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for row in map(json.loads, file):
            yield {"prompt": row["prompt"], "answer": row["answer"], "score": row["scores"]["score"]}


def card(job: Job, group: str | None) -> JobCard:
    from prefsweep.pipeline.store import commit

    tags = [job.config.model.name, job.config.dataset.name, *([found[:12]] if (found := commit()) else [])]
    return JobCard(job.name, group, job.config.method.name, tuple(tags), job.resolved)


def share_threads(runtime: RuntimeConfig, share: int) -> None:
    """Before the first tensor: bit-identity is per thread count."""
    import torch

    torch.set_num_threads(runtime.threads or max(1, (os.cpu_count() or 1) // share))


class RunFile:
    """`run.json`, and what it says of each stage: kept by listening to the runner."""

    def __init__(self, job: Job, folder: Path):
        self.job = job
        self.path = folder / "run.json"
        self.listeners: list[Any] = []
        self.cost: dict[str, dict[str, Any]] = {}
        self.metrics: dict[str, Any] = {}
        self.started_at = time.monotonic()

    def write(self, status: str, records: dict[str, Record] | None = None, error: str | None = None) -> None:
        if records:
            self.metrics = records[self.job.plan.target.role]["metrics"]
        write_json(
            self.path,
            {
                "status": status,
                "name": self.job.name,
                "identity": self.job.plan.identity,
                "overrides": self.job.overrides,
                "metrics": self.metrics,
                "cost": {"seconds": round(time.monotonic() - self.started_at, 3), "stages": self.cost},
                "stages": {stage.role: stage.identity for stage in self.job.plan.stages},
                "config": self.job.resolved,
                "error": error,
            },
        )

    def note(self, stage: Stage, record: Record, paid: bool) -> None:
        self.cost[stage.role] = {**record["cost"], "paid": paid}

    # The runner's events, noted and passed on.

    def reused(self, stage: Stage, folder: Path, record: Record) -> None:
        self.note(stage, record, paid=False)
        for listener in self.listeners:
            listener.reused(stage, folder, record)

    def started(self, stage: Stage) -> None:
        for listener in self.listeners:
            listener.started(stage)

    def logged(self, stage: Stage, row: dict[str, Any]) -> None:
        for listener in self.listeners:
            listener.logged(stage, row)

    def built(self, stage: Stage, folder: Path, record: Record) -> None:
        self.note(stage, record, paid=True)
        for listener in self.listeners:
            listener.built(stage, folder, record)
