"""What a run says on the terminal."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prefsweep.hub import not_pinned
from prefsweep.jobs import dataset_summary
from prefsweep.pipeline.compare import nearest_built
from prefsweep.pipeline.plan import Plan
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Record, Store

console = Console(highlight=False)


def say(line: str) -> None:
    console.print(escape(line), soft_wrap=True)


def waiting(what: str, progress: bool) -> AbstractContextManager[Any]:
    """Says so while it lasts, to who watches at a terminal."""
    return Console(stderr=True).status(what) if progress else nullcontext()


def show_plan(plan: Plan, store: Store, title: str) -> None:
    """Each stage, built or missing, and for a missing one the nearest built one and what it differs in."""
    console.print(escape(title), style="italic", soft_wrap=True)  # whole, so that it can be copied
    for line in [*dataset_summary.lines(plan.stages, store), *model_lines(plan, store)]:
        say(line)
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "identity", "state", ""):
        table.add_column(heading)
    for stage in plan.stages:
        built = store.find(stage) is not None
        state = "[green]built" if built else "[yellow]missing"
        table.add_row(stage.role, stage.identity, state, "" if built else escape(difference(stage, store)))
    console.print(table)


def difference(stage: Stage, store: Store) -> str:
    found = nearest_built(stage, store)
    if found is None:
        return ""
    identity, changes = found
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return f"nearest {identity[:8]}: {'; '.join(changes[:3])}{more}"


def model_lines(plan: Plan, store: Store) -> Iterator[str]:
    """The models whose commit the config does not say."""
    sections = {name: section for stage in plan.stages for name, section in stage.sections.items() if name != "dataset"}
    for section in sections.values():
        if pin := not_pinned(section, store.root.parent):
            yield f"{section.name}: {pin}"


class Listener:
    """A line a stage."""

    def reused(self, stage: Stage, folder: Path, record: Record) -> None:
        say(f"  {stage.role:<16}built      {folder.name}")

    def started(self, stage: Stage) -> None:
        say(f"  {stage.role:<16}building   {stage.identity}")

    def logged(self, stage: Stage, row: dict[str, Any]) -> None:
        pass

    def built(self, stage: Stage, folder: Path, record: Record) -> None:
        say(f"  {stage.role:<16}done       {folder.name}  {record['cost']['seconds']:.1f} s")


def show_metrics_of(folder: Path) -> None:
    """A finished run's metrics, and where they lie."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in json.loads((folder / "run.json").read_text())["metrics"].items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    say(str(folder / "run.json"))
