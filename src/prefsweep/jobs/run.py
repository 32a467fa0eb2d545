"""Run a job: build its stages, track them, and write run.json however it ends."""

import dataclasses
import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import OmegaConf

from prefsweep.config.schema import RuntimeConfig
from prefsweep.config.stage import TrainingConfig
from prefsweep.errors import DivergedError
from prefsweep.hub import check_models
from prefsweep.jobs import console, dataset_summary
from prefsweep.jobs.before_after import Pair, read_pairs, write_before_after
from prefsweep.jobs.job import Job, repositories, store_of
from prefsweep.jobs.tracking import JobCard, tracking
from prefsweep.pipeline import runner
from prefsweep.pipeline.cost import total
from prefsweep.pipeline.files import read_jsonl, write_json, write_text
from prefsweep.pipeline.fingerprint import fingerprint
from prefsweep.pipeline.plan import with_ancestors
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Record, Store, commit


def execute(job: Job, folder: Path, group: str | None = None, share: int = 1, silent: bool = False) -> None:
    """Run the job; `folder/run.json` says how it ended in every case. `share` jobs run on this machine at once."""
    store = store_of(job.config.runtime)
    to_build = runner.missing(job.plan, store)
    state = RunFile(job, folder)
    state.write("running")
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(job.resolved)))
    try:
        needed = repositories(job.config, to_build).values()
        check_models(repo for repo in needed if repo.kind == "model")  # a missing judge must not fail after hours
        with ExitStack() as stack:
            settings = job.config.tracking
            if not to_build:  # a job with nothing to build opens no W&B run
                settings = dataclasses.replace(settings, enabled=False)
            tracker = stack.enter_context(tracking(settings, card(job, group), console.print_line))
            if to_build:
                with console.waiting("reading the data", job.config.runtime.progress and not silent):
                    lines = list(dataset_summary.validate_datasets(to_build, store))
                for line in [] if silent else lines:
                    console.print_line(f"  {line}")
                share_threads(job.config.runtime, share)
            printers = [] if silent else [console.StagePrinter()]
            records = runner.run(job.plan, store, job.config.runtime, state, *printers, tracker)
            reason = diverged(records)
            state.write("diverged" if reason else "finished", records, reason)
            if reason:
                console.print_line(f"diverged: {reason}")
            completions = store.folder(job.plan.target) / "completions.jsonl"
            tracker.summary(state.metrics)
            tracker.samples({**row, "score": row["scores"]["score"]} for row in read_jsonl(completions))
            if pairs := before_after_pairs(job, store):
                write_before_after(pairs, folder)
                tracker.before_after(map(dataclasses.asdict, pairs))
    except DivergedError as error:
        state.write("diverged", error=str(error))
        raise
    except BaseException as error:
        state.write("failed", error=f"{type(error).__name__}: {error}".strip().splitlines()[-1])
        raise


def diverged(records: dict[str, Record]) -> str | None:
    """Return why a training stage stopped itself, if one did; its last finite state was judged like any other."""
    reasons = [record["metrics"]["diverged"] for record in records.values() if "diverged" in record["metrics"]]
    return "; ".join(reasons) or None


def before_after_pairs(job: Job, store: Store) -> list[Pair]:
    """Return the completions before and after training; none where nothing was trained or they were deleted."""
    judged = [job.plan.target.inputs[name] for name in ("start", "result") if name in job.plan.target.inputs]
    paths = [store.folder(stage) / "completions.jsonl" for stage in judged]
    if len(set(paths)) < 2 or not all(path.is_file() for path in paths):
        return []
    return read_pairs(*paths)


def method_stages(job: Job) -> set[str]:
    """Return the identities of the stages that make the method's policy from the base, without those of the base."""

    def identities(name: str) -> set[str]:
        policy = job.plan.target.inputs.get(name)
        return {stage.identity for stage in with_ancestors(policy)} if policy else set()

    return identities("policy") - identities("base_policy")


def decoding(target: Stage) -> dict[str, Any]:
    """Return how the judged completions of the result were generated: prompts, temperature, length; and how many draws
    of the base its win rates are against, 0 for the one by common random numbers."""
    judged = [target.inputs[name] for name in ("result", "opponents") if name in target.inputs]
    configs = [stage.inputs["completions"].config for stage in judged if "completions" in stage.inputs]
    if not configs:
        return {}
    draws = getattr(configs[1], "completions_per_prompt", 0) if len(configs) > 1 else 0
    return dataclasses.asdict(configs[0]) | {"opponents": draws}


def card(job: Job, group: str | None) -> JobCard:
    tags = [job.config.model.name, job.config.dataset.name, *([head[:12]] if (head := commit()) else [])]
    return JobCard(job.name, group, job.config.method.name, tuple(tags), job.resolved)


def share_threads(runtime: RuntimeConfig, share: int) -> None:
    """Before the first tensor: bit-identity is per thread count."""
    import torch

    torch.set_num_threads(runtime.threads or max(1, (os.cpu_count() or 1) // share))


def total_of(stages: list[tuple[Stage, dict[str, Any]]]) -> dict[str, float]:
    """Return the total of the costs of stages; labels of the same rows count once, however many stages learn them."""
    read: dict[str, int] = {}
    sums = total(cost for _, cost in stages)
    for stage, cost in stages:
        if "labels" in sums and isinstance(stage.config, TrainingConfig):
            rows = fingerprint(stage.payload["sections"]["dataset"])
            sums["labels"] -= min(read.get(rows, 0), cost["labels"])
            read[rows] = max(read.get(rows, 0), cost["labels"])
    return sums


def reward_metrics(job: Job, records: dict[str, Record]) -> dict[str, float]:
    """Return how well the reward that this job trains ranks the validation pairs; nothing where it trains none."""
    rewards = [stage.role for stage in job.plan.stages if stage.config.trains_scorer == "reward"]
    measured = records[rewards[0]]["metrics"] if rewards else {}
    names = ("accuracy", "length_accuracy")
    return {f"reward/{name}": measured[f"validation/{name}"] for name in names if f"validation/{name}" in measured}


class RunFile(runner.Listener):
    """Writes `run.json`; as a listener of the runner it collects the cost and the warnings of each stage."""

    def __init__(self, job: Job, folder: Path):
        self.job = job
        self.path = folder / "run.json"
        self.cost: dict[str, dict[str, Any]] = {}
        self.metrics: dict[str, Any] = {}
        self.warnings: dict[str, str] = {}  # by the role of the stage
        self.started_at = time.monotonic()

    def write(self, status: str, records: dict[str, Record] | None = None, error: str | None = None) -> None:
        if records:
            self.metrics = records[self.job.plan.target.role]["metrics"] | reward_metrics(self.job, records)
        target = self.job.plan.target
        write_json(
            self.path,
            {
                "status": status,
                "name": self.job.name,
                "identity": self.job.plan.identity,
                "overrides": self.job.overrides,
                "metrics": self.metrics,
                "warnings": list(self.warnings.values()),
                "cost": {"seconds": round(time.monotonic() - self.started_at, 3), **self.totals(), "stages": self.cost},
                "stages": {stage.role: stage.identity for stage in self.job.plan.stages},
                "target": target.role,
                "inputs": {name: source.role for name, source in target.inputs.items()},  # of the target
                "decoding": decoding(target),
                "judging": sorted({stage.name for stage in self.job.plan.stages if stage.config.built_by_rescoring}),
                "config": self.job.resolved,
                "error": error,
            },
        )

    def totals(self) -> dict[str, dict[str, float]]:
        """Return the cost of the `method`, base excluded; of the `whole` plan; and of what this run built, `paid`.

        The first two count stages whichever run built them, and are left out where a stage is not built.
        """
        stages = self.job.plan.stages
        known = {stage.identity: (stage, self.cost[stage.role]) for stage in stages if stage.role in self.cost}
        totals = {"paid": total_of([(stage, cost) for stage, cost in known.values() if cost["paid"]])}
        for name, identities in (("method", method_stages(self.job)), ("whole", {stage.identity for stage in stages})):
            if identities <= known.keys():
                totals[name] = total_of([known[identity] for identity in identities])
        return totals

    def reused(self, stage: Stage, folder: Path, record: Record) -> None:
        self.note(stage, record, paid=False)

    def built(self, stage: Stage, folder: Path, record: Record) -> None:
        self.note(stage, record, paid=True)

    def note(self, stage: Stage, record: Record, paid: bool) -> None:
        self.cost[stage.role] = {**record["cost"], "paid": paid}
        if "warning" in record["metrics"]:
            self.warnings[stage.role] = record["metrics"]["warning"]


def exit_on_sigterm(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM like any other failure, so that run.json is written and the tracker closed."""
    raise SystemExit(128 + number)
