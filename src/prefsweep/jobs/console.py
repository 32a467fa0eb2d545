"""What a run prints on the terminal."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prefsweep.data.truncation import sentence
from prefsweep.pipeline.compare import nearest_built
from prefsweep.pipeline.plan import Plan
from prefsweep.pipeline.runner import Listener
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Record, Store

console = Console(highlight=False)


def print_line(line: str) -> None:
    console.print(escape(line), soft_wrap=True)


def waiting(message: str, progress: bool) -> AbstractContextManager[Any]:
    """Show a message on the terminal for as long as the block runs; do nothing without `progress`."""
    return Console(stderr=True).status(message) if progress else nullcontext()


def show_plan(plan: Plan, store: Store, title: str) -> None:
    """Print each stage as built or missing; for a missing one, how it differs from the most similar built one."""
    from prefsweep.jobs import dataset_summary  # as in `model_lines`: it imports the schema, which `table` needs not

    console.print(escape(title), style="italic", soft_wrap=True)  # unwrapped, so that it can be copied
    for line in [*dataset_summary.lines(plan.stages, store), *model_lines(plan, store)]:
        print_line(line)
    table = Table("stage", "identity", "state", "", box=None, pad_edge=False)
    for stage in plan.stages:
        record = store.find(stage)
        state = "[yellow]missing" if record is None else "[green]built"
        note = nearest_line(stage, store) if record is None else sentence(record["metrics"])
        table.add_row(stage.role, stage.identity, state, escape(note))
    console.print(table)


def nearest_line(stage: Stage, store: Store) -> str:
    """Name the most similar built stage and up to three differences from it."""
    match = nearest_built(stage, store)
    if match is None:
        return ""
    identity, changes = match
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return f"nearest {identity[:8]}: {'; '.join(changes[:3])}{more}"


def model_lines(plan: Plan, store: Store) -> Iterator[str]:
    """Yield a line for each model whose commit the config does not pin."""
    from prefsweep.hub import not_pinned

    sections = {name: section for stage in plan.stages for name, section in stage.sections.items() if name != "dataset"}
    for section in sections.values():
        if pin := not_pinned(section, store.root.parent):
            yield f"{section.name}: {pin}"


class StagePrinter(Listener):
    """Prints a line for each stage of a run."""

    def reused(self, stage: Stage, folder: Path, record: Record) -> None:
        print_line(f"  {stage.role:<28}built      {folder.name}")

    def started(self, stage: Stage) -> None:
        print_line(f"  {stage.role:<28}building   {stage.identity}")

    def built(self, stage: Stage, folder: Path, record: Record) -> None:
        print_line(f"  {stage.role:<28}done       {folder.name}  {record['cost']['seconds']:.1f} s")
        for note in filter(None, (sentence(record["metrics"]), record["metrics"].get("warning"))):
            print_line(f"  {'':<28}{note}")


def show_metrics_of(folder: Path) -> None:
    """Print the metrics of a finished run and the path of its run.json."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in json.loads((folder / "run.json").read_text())["metrics"].items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    print_line(str(folder / "run.json"))
