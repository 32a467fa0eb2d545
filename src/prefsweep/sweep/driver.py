"""Run a sweep: a process for each job, `jobs` of them at once, and a table at the end, however it ends.

A job that fails or is killed does not stop the others.
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
from prefsweep.jobs.console import console, print_line, show_plan
from prefsweep.jobs.job import Job, store_of
from prefsweep.jobs.run import RunFile, execute
from prefsweep.jobs.tracking import JobCard, tracking
from prefsweep.pipeline.files import write_json
from prefsweep.pipeline.runner import missing
from prefsweep.sweep.devices import gpus, least_used
from prefsweep.sweep.grid import Grid
from prefsweep.sweep.worker import LOG, run_job

MANIFEST = "sweep.json"  # lists the sweep's jobs in order: the folder may also hold the jobs of an older grid
COLUMNS = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))


@dataclass
class Queue:
    """The jobs of a sweep that wait, run and have ended."""

    waiting: list[Job]
    folder: Path
    max_running: int
    context: Any
    gpus: list[str]
    running: dict[Any, tuple[Any, Job, str | None]] = field(default_factory=dict)  # sentinel → process, job, GPU
    exit_codes: list[int] = field(default_factory=list)  # of the jobs that have ended

    def start(self) -> None:
        while self.waiting and len(self.running) < self.max_running:
            job = self.waiting.pop(0)
            gpu = least_used(self.gpus, (gpu for _, _, gpu in self.running.values()))
            arguments = (job, self.folder / job.name, self.folder.name, self.max_running, gpu)
            process = self.context.Process(target=run_job, args=arguments, name=job.name)
            process.start()
            self.running[process.sentinel] = (process, job, gpu)

    def collect(self) -> list[tuple[Job, int]]:
        """Wait until a job ends; return the jobs that have ended since the last call, with their exit codes."""
        ended = []
        for sentinel in wait(list(self.running)):
            process, job, _ = self.running.pop(sentinel)
            process.join()
            if process.exitcode:
                record_death(self.folder / job.name, process.exitcode)
            ended.append((job, process.exitcode))
        self.exit_codes += [code for _, code in ended]
        return ended

    def stop(self) -> None:
        """Terminate every job with a signal that lets it close its files, and wait for them."""
        for process, _, _ in self.running.values():
            process.terminate()
        for process, _, _ in self.running.values():
            process.join()


def sweep(grid: Grid) -> int:
    """Run the jobs of a grid; return the exit code, 1 if a job has failed."""
    runtime = grid.jobs[0].config.runtime
    folder = Path("multirun_sweeps") / grid.name
    if runtime.dry_run:
        for job in grid.jobs:
            show_plan(job.plan, store_of(runtime), job.name)
        return 0
    write_json(folder / MANIFEST, manifest(grid))
    for job in grid.jobs:  # so that the table lists those that a killed sweep never started
        if not (folder / job.name / "run.json").is_file():
            RunFile(job, folder / job.name).write("missing")
    print_line(f"{grid.name}: {len(grid.jobs)} jobs, {grid.jobs[0].config.jobs} at once, in {folder}")
    queue = Queue([], folder, grid.jobs[0].config.jobs, forkserver(), gpus())
    try:
        for job in grid.jobs:
            if missing(job.plan, store_of(runtime)):
                queue.waiting.append(job)
            else:  # with nothing to build, the server with the libraries is not even started
                execute(job, folder / job.name, grid.name, silent=True)
                print_line(outcome(folder / job.name, job.name, 0))
        with Progress(*COLUMNS, console=console, disable=not console.is_terminal) as bar:
            follow(queue, bar.add_task("", total=len(queue.waiting)), bar)
    except BaseException:
        queue.stop()
        raise
    finally:
        from prefsweep.report import report  # whose libraries no help, plan or error waits for

        files = report(folder, console)
    if queue.exit_codes:  # a sweep with nothing to build opens no W&B run
        track(files, folder.name, grid.jobs[0].config.tracking)
    return int(any(queue.exit_codes))


def manifest(grid: Grid) -> dict[str, Any]:
    """Return what the report needs and no single run knows."""
    config = grid.jobs[0].config
    return {
        "jobs": [job.name for job in grid.jobs],
        "command": shlex.join(["prefsweep", *sys.argv[1:]]),
        "published": config.published,
        "report": dataclasses.asdict(config.report),
    }


def forkserver() -> Any:
    """Return a context whose processes fork from a server that has imported the libraries but not initialised CUDA."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # checking for a GPU must not initialise CUDA
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prefsweep.sweep.preload"])
    return context


def follow(queue: Queue, task: Any, bar: Progress) -> None:
    """Start jobs and print how each ended until none is left."""
    while queue.waiting or queue.running:
        queue.start()
        bar.update(task, description=escape(" ".join(job.name for _, job, _ in queue.running.values())))
        for job, code in queue.collect():
            bar.advance(task)
            print_line(outcome(queue.folder / job.name, job.name, code))


def outcome(folder: Path, name: str, code: int) -> str:
    """Return one line that says how a job ended."""
    run = json.loads((folder / "run.json").read_text())
    if code == 0:
        score = run["metrics"].get("judge/mean")
        result = "" if score is None else f"  judge/mean {score:.3f}"
        reason = f"  {run['error']}" if run["error"] else ""  # a run that diverged and was judged nevertheless
        return f"  {run['status']:<9} {name}  {run['cost']['seconds']:.1f} s{result}{reason}"
    return f"  {run['status']:<9} {name}  {run['error']}  (see {folder / LOG})"


def record_death(folder: Path, code: int) -> None:
    """Write to run.json how a job ended that could not do so itself because it was killed."""
    path = folder / "run.json"
    if not path.is_file():  # the sweep wrote one for every job: somebody has deleted it
        return
    run = json.loads(path.read_text())
    if run["status"] in ("missing", "running"):
        error = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        write_json(path, run | {"status": "failed", "error": error})


def track(files: list[Path], name: str, settings: TrackingConfig) -> None:
    """Log the table and figures of a sweep to a W&B run beside those of its jobs."""
    card = JobCard(f"{name}-report", name, "report", (), {})
    with tracking(settings, card, print_line) as tracker:
        cells = next(path for path in files if path.suffix == ".csv")
        tracker.report(cells, [path for path in files if path.suffix == ".png"])
