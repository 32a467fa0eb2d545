"""Running a job: its stages, its tracker, and run.json, whatever happens."""

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import OmegaConf

from prefsweep.config.schema import RuntimeConfig
from prefsweep.errors import DivergedError
from prefsweep.hub import check_models
from prefsweep.jobs import console, dataset_summary
from prefsweep.jobs.before_after import Pair, read_pairs, write_before_after
from prefsweep.jobs.job import Job, repositories, store_of
from prefsweep.jobs.tracking import JobCard, tracking
from prefsweep.pipeline import runner
from prefsweep.pipeline.cost import total
from prefsweep.pipeline.files import write_json, write_text
from prefsweep.pipeline.plan import behind
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Record, Store


def execute(job: Job, folder: Path, group: str | None = None, share: int = 1, silent: bool = False) -> None:
    """Run the job; whatever happens, `folder/run.json` says how it ended. `share` jobs use this machine at once."""
    store = store_of(job.config.runtime)
    todo = runner.missing(job.plan, store)
    state = RunFile(job, folder)
    state.write("running")
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(job.resolved)))
    try:
        needed = repositories(job.config, todo).values()
        check_models(each for each in needed if each.kind == "model")  # now, not after hours at the judge
        with ExitStack() as stack:
            settings = job.config.tracking
            if not todo:  # a job with nothing to do leaves no run behind
                settings = dataclasses.replace(settings, enabled=False)
            tracker = stack.enter_context(tracking(settings, card(job, group), console.say))
            state.listeners = [tracker] if silent else [console.Listener(), tracker]
            if todo:
                with console.waiting("reading the data", job.config.runtime.progress and not silent):
                    told = list(dataset_summary.validate_datasets(todo, store))
                for line in [] if silent else told:
                    console.say(f"  {line}")
                share_threads(job.config.runtime, share)
            records = runner.run(job.plan, store, job.config.runtime, state)
            reason = diverged(records)
            state.write("diverged" if reason else "finished", records, reason)
            if reason:
                console.say(f"diverged: {reason}")
            tracker.summary(state.metrics)
            tracker.samples(judged_samples(store.folder(job.plan.target) / "completions.jsonl"))
            if pairs := compared(job, store):
                write_before_after(pairs, folder)
                tracker.before_after(map(asdict, pairs))
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


def compared(job: Job, store: Store) -> list[Pair]:
    """Return the completions of the method's start and result; none where nothing was trained or they are gone."""
    judged = [job.plan.target.inputs[name] for name in ("start", "result") if name in job.plan.target.inputs]
    paths = [store.folder(stage) / "completions.jsonl" for stage in judged]
    if len(set(paths)) < 2 or not all(path.is_file() for path in paths):
        return []
    return read_pairs(*paths)


def judged_samples(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for row in map(json.loads, file):
            yield {"prompt": row["prompt"], "completion": row["completion"], "score": row["scores"]["score"]}


def learning(job: Job) -> set[str]:
    """Return the identities of the stages from the base, whose making is no method's cost, to the method's result."""
    start, result = (job.plan.target.inputs.get(name) for name in ("base_policy", "policy"))
    made, given = ({stage.identity for stage in behind(stage)} if stage else set() for stage in (result, start))
    return made - given


def decoding(target: Stage) -> dict[str, Any]:
    """Return how the judged completions of the result were generated: prompts, temperature, length."""
    judged = target.inputs.get("result")
    generated = judged.inputs.get("completions") if judged else None
    return dataclasses.asdict(generated.config) if generated else {}


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
        target = self.job.plan.target
        write_json(
            self.path,
            {
                "status": status,
                "name": self.job.name,
                "identity": self.job.plan.identity,
                "overrides": self.job.overrides,
                "metrics": self.metrics,
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
        """`method`: from the base to the result, judging left out; `whole`: every stage; `paid`: what this run built.

        The first two whoever paid for them; left out where a stage is not built yet, or gone.
        """
        stages = self.job.plan.stages
        sums = {"method": learning(self.job), "whole": {stage.identity for stage in stages}}
        known = {stage.identity: self.cost[stage.role] for stage in stages if stage.role in self.cost}
        found = {
            name: total(known[identity] for identity in wanted)
            for name, wanted in sums.items()
            if wanted <= known.keys()
        }
        return found | {"paid": total(cost for cost in known.values() if cost["paid"])}

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


def terminated(number: int, frame: FrameType | None) -> None:
    """A polite kill ends like any failure: run.json says so and the tracker is closed."""
    raise SystemExit(128 + number)
