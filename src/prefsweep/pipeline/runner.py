"""Build what a plan's target is missing, and nothing else."""

import functools
from pathlib import Path
from typing import Any, Protocol

from prefsweep.pipeline.history import History, Row
from prefsweep.pipeline.plan import Plan
from prefsweep.pipeline.stage import Context, Stage
from prefsweep.pipeline.store import Record, Store, Workplace


class Listener(Protocol):
    """Who wants to know how a run goes: the console, the tracker."""

    def reused(self, stage: Stage, folder: Path, record: Record) -> None: ...
    def started(self, stage: Stage) -> None: ...
    def logged(self, stage: Stage, row: Row) -> None: ...
    def built(self, stage: Stage, folder: Path, record: Record) -> None: ...


def missing(plan: Plan, store: Store) -> list[Stage]:
    """What must be built, walking back from the target: what stands behind a finished stage is not looked at."""
    wanted: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.identity not in wanted and store.find(stage) is None:
            wanted[stage.identity] = stage
            for source in stage.inputs.values():
                visit(source)

    visit(plan.target)
    return [stage for stage in plan.stages if wanted.get(stage.identity) is stage]


def run(plan: Plan, store: Store, runtime: Any, listener: Listener) -> dict[str, Record]:
    """Every stage of the plan that is built at the end, by role; the target is among them."""
    to_build = {stage.identity for stage in missing(plan, store)}
    done: dict[str, Record] = {}
    for stage in plan.stages:
        if stage.identity in done:  # two roles, one computation
            continue
        if stage.identity in to_build:
            done[stage.identity] = ensure(stage, store, runtime, listener)
        elif (record := store.find(stage)) is not None:
            listener.reused(stage, store.folder(stage), record)
            done[stage.identity] = record
    return {stage.role: done[stage.identity] for stage in plan.stages if stage.identity in done}


def ensure(stage: Stage, store: Store, runtime: Any, listener: Listener) -> Record:
    def make(place: Workplace) -> dict[str, Any]:
        listener.started(stage)
        history = History(place.history, lambda row: listener.logged(stage, row))
        if not any(place.checkpoints.iterdir()):
            history.rewind(-1)
        folders = {name: store.folder(source) for name, source in stage.inputs.items()}
        find_similar = functools.partial(store.find_similar, stage)
        context = Context(runtime, place.checkpoints, history, find_similar, place.cost)
        return stage.function(stage.config, **stage.sections, **folders, folder=place.artifact, context=context)

    record, built_here = store.build(stage, make)
    if built_here:
        listener.built(stage, store.folder(stage), record)
    else:
        listener.reused(stage, store.folder(stage), record)
    return record
