"""Build the missing stages that a plan's target needs, and nothing else."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prefsweep.pipeline.history import History, Row
from prefsweep.pipeline.plan import Plan
from prefsweep.pipeline.stage import Context, Stage
from prefsweep.pipeline.store import BuildFolder, Record, Store


class Listener:
    """What is notified of the progress of a run: run.json, the console, the tracker."""

    def reused(self, stage: Stage, folder: Path, record: Record) -> None: ...
    def started(self, stage: Stage) -> None: ...
    def logged(self, stage: Stage, row: Row) -> None: ...
    def built(self, stage: Stage, folder: Path, record: Record) -> None: ...


def missing(plan: Plan, store: Store) -> list[Stage]:
    """Return the stages to build, searching back from the target: the inputs of a finished stage are not needed."""
    needed: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.identity not in needed and store.find(stage) is None:
            needed[stage.identity] = stage
            for source in stage.inputs.values():
                visit(source)

    visit(plan.target)
    return [stage for stage in plan.stages if needed.get(stage.identity) is stage]


def notify(listeners: Iterable[Listener], event: str, *details: Any) -> None:
    """Call the method of every listener that is named after the event."""
    for listener in listeners:
        getattr(listener, event)(*details)


def run(plan: Plan, store: Store, runtime: Any, *listeners: Listener) -> dict[str, Record]:
    """Build what is missing; return the records of all stages of the plan that are built, by role."""
    to_build = {stage.identity for stage in missing(plan, store)}
    done: dict[str, Record] = {}
    for stage in plan.stages:
        if stage.identity in done:  # two roles may compute the same
            continue
        if stage.identity in to_build:
            done[stage.identity] = build_or_reuse(stage, store, runtime, listeners)
        elif (record := store.find(stage)) is not None:
            notify(listeners, "reused", stage, store.folder(stage), record)
            done[stage.identity] = record
    return {stage.role: done[stage.identity] for stage in plan.stages if stage.identity in done}


def build_or_reuse(stage: Stage, store: Store, runtime: Any, listeners: Sequence[Listener]) -> Record:
    """Build one stage, unless another process has built it since, and notify the listeners."""

    def make(build: BuildFolder) -> dict[str, Any]:
        notify(listeners, "started", stage)
        history = History(build.history, functools.partial(notify, listeners, "logged", stage))
        if not any(build.checkpoints.iterdir()):
            history.rewind(-1)
        folders = {name: store.folder(source) for name, source in stage.inputs.items()}
        find_similar = functools.partial(store.find_similar, stage)
        context = Context(runtime, build.checkpoints, history, find_similar, build.cost)
        return stage.function(stage.config, **stage.sections, **folders, folder=build.artifact, context=context)

    record, built_here = store.build(stage, make)
    notify(listeners, "built" if built_here else "reused", stage, store.folder(stage), record)
    return record
