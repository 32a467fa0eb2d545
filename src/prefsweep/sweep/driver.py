"""The driver of a sweep: one process a job, `jobs` at once, and at the end, always, the table.

A job that fails or is killed costs itself; the others go on.
"""

import dataclasses
import json
import multiprocessing
import os
import shlex
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from prefsweep.config.schema import TrackingConfig
from prefsweep.jobs.console import console, say, show_plan
from prefsweep.jobs.job import Job, store_of
from prefsweep.jobs.run import RunFile, execute
from prefsweep.jobs.tracking import JobCard, tracking
from prefsweep.pipeline.files import write_json
from prefsweep.pipeline.runner import missing
from prefsweep.sweep.devices import gpus, least_used
from prefsweep.sweep.grid import Grid
from prefsweep.sweep.worker import LOG, work

MANIFEST = "sweep.json"  # which jobs are the sweep's, in order: an older grid's jobs may lie in the same folder


@dataclass
class Queue:
    waiting: list[Job]
    folder: Path
    at_once: int
    context: Any
    gpus: list[str]
    running: dict[Any, tuple[Any, Job, str | None]] = field(default_factory=dict)  # by sentinel
    failed: list[Job] = field(default_factory=list)
    ended: int = 0

    def start(self) -> None:
        while self.waiting and len(self.running) < self.at_once:
            job = self.waiting.pop(0)
            gpu = least_used(self.gpus, (gpu for _, _, gpu in self.running.values()))
            arguments = (job, self.folder / job.name, self.folder.name, self.at_once, gpu)
            process = self.context.Process(target=work, args=arguments, name=job.name)
            process.start()
            self.running[process.sentinel] = (process, job, gpu)

    def collect(self) -> list[tuple[Job, int]]:
        """The jobs that have ended since, with their exit codes; waits for the first."""
        ended = []
        for sentinel in wait(list(self.running)):
            process, job, _ = self.running.pop(sentinel)
            process.join()
            if process.exitcode:
                self.failed.append(job)
                note_death(self.folder / job.name, process.exitcode)
            ended.append((job, process.exitcode))
            self.ended += 1
        return ended

    def stop(self) -> None:
        """On an interrupt: a polite end to every job, so that each closes its files."""
        for process, _, _ in self.running.values():
            process.terminate()
        for process, _, _ in self.running.values():
            process.join()


def sweep(grid: Grid) -> int:
    runtime = grid.jobs[0].config.runtime
    folder = Path(runtime.multirun) / grid.name
    if runtime.dry_run:
        for job in grid.jobs:
            show_plan(job.plan, store_of(runtime), job.name)
        return 0
    write_json(folder / MANIFEST, manifest(grid))
    for job in grid.jobs:  # so that the table knows of those that a killed sweep never reached
        if not (folder / job.name / "run.json").is_file():
            RunFile(job, folder / job.name).write("missing")
    say(f"{grid.name}: {len(grid.jobs)} jobs, {grid.jobs[0].config.jobs} at once, in {folder}")
    queue = Queue([], folder, grid.jobs[0].config.jobs, server(), gpus())
    try:
        for job in grid.jobs:
            if missing(job.plan, store_of(runtime)):
                queue.waiting.append(job)
            else:  # nothing to build is nothing to fork for: the server of the libraries is not even started
                execute(job, folder / job.name, grid.name, silent=True)
                say(ending(folder / job.name, job.name, 0))
        with progress_bar() as bar:
            follow(queue, bar.add_task("", total=len(queue.waiting)), bar)
    except BaseException:
        queue.stop()
        raise
    finally:
        written = table(folder)
    if queue.ended:  # a sweep that had nothing to build leaves no run behind
        track(written, folder.name, grid.jobs[0].config.tracking)
    return 1 if queue.failed else 0


def manifest(grid: Grid) -> dict[str, Any]:
    """What the report must know that no run says."""
    config = grid.jobs[0].config
    layout = dataclasses.asdict(config.report)
    command = shlex.join(["prefsweep", *sys.argv[1:]])
    jobs = [job.name for job in grid.jobs]
    return {"jobs": jobs, "command": command, "published": config.published, "report": layout}


def server() -> Any:
    """The context whose processes fork from a server that has imported the libraries and touched no device."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking for a GPU's presence must not start CUDA
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prefsweep.sweep.preload"])
    return context


def progress_bar() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console, disable=not console.is_terminal)


def follow(queue: Queue, task: Any, bar: Progress) -> None:
    """Start, wait, tell, until nothing is left."""
    while queue.waiting or queue.running:
        queue.start()
        bar.update(task, description=escape(" ".join(job.name for _, job, _ in queue.running.values())))
        for job, code in queue.collect():
            bar.advance(task)
            say(ending(queue.folder / job.name, job.name, code))


def ending(folder: Path, name: str, code: int) -> str:
    found = json.loads((folder / "run.json").read_text())
    if code == 0:
        score = found["metrics"].get("judge/mean")
        shown = "" if score is None else f"  judge/mean {score:.3f}"
        why = f"  {found['error']}" if found["error"] else ""  # one that diverged, and was judged all the same
        return f"  {found['status']:<9} {name}  {found['cost']['seconds']:.1f} s{shown}{why}"
    return f"  {found['status']:<9} {name}  {found['error']}  (see {folder / LOG})"


def note_death(folder: Path, code: int) -> None:
    """A job that was killed could not write how it ended."""
    path = folder / "run.json"
    found = json.loads(path.read_text()) if path.is_file() else {"name": folder.name, "metrics": {}, "cost": {}}
    if found.get("status") in (None, "missing", "running"):
        how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        write_json(path, found | {"status": "failed", "error": how})


def table(folder: Path) -> list[Path]:
    from prefsweep.report import report

    return report(folder, console)


def track(written: list[Path], name: str, settings: TrackingConfig) -> None:
    """The sweep's own W&B run, beside those of its jobs: its table and its figures."""
    card = JobCard(f"{name}-report", name, "report", (), {})
    with tracking(settings, card, say) as tracker:
        cells = [path for path in written if path.suffix == ".csv"]
        tracker.report(cells[0], [path for path in written if path.suffix == ".png"])
