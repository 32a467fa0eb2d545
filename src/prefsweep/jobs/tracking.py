"""The W&B run of one job, if it has one. It is always closed, and no error of W&B makes the job fail."""

import csv
import itertools
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefsweep.config.schema import TrackingConfig
from prefsweep.jobs.before_after import COLUMNS
from prefsweep.pipeline.history import History, Row
from prefsweep.pipeline.runner import Listener
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Record

SAMPLE_COLUMNS = ("prompt", "completion", "score")
SAMPLE_ROWS = 64
STARTUP_SECONDS = 300.0  # W&B waits 30 for its service process: too little where the jobs of a grid start together

Notify = Callable[[str], None]


@dataclass(frozen=True)
class JobCard:
    """What W&B shows of a job: `group` is its sweep, `job_type` its method."""

    name: str
    group: str | None
    job_type: str
    tags: tuple[str, ...]
    config: dict[str, Any]


class Tracker(Listener):
    """Logs the stages of one job to W&B; without a run it does nothing.

    The metrics of a stage are named `{stage}/{metric}`, and the stage has its own axis, `{stage}/global_step`. A metric
    that is a list of samples becomes a table.
    """

    def __init__(self, run: Any = None, notify: Notify = print):
        self.run = run
        self.notify = notify
        self.axes: set[str] = set()
        self.last_logged: dict[str, tuple[int, set[str]]] = {}  # identity → its last step, the metrics logged at it

    def reused(self, stage: Stage, folder: Path, record: Record) -> None:
        """Log the history of a finished stage, as the job that built it did; rows logged before are skipped."""
        if self.run is not None:
            for row in History(folder / "history.jsonl").rows():
                self.logged(stage, row)

    def logged(self, stage: Stage, row: Row) -> None:
        metrics = self.new_metrics(stage, row)
        if not metrics:
            return
        name = metric_prefix(stage)
        if name not in self.axes:
            self.axes.add(name)
            self.call(lambda run: run.define_metric(f"{name}/*", step_metric=f"{name}/global_step"))
        for table in [metric for metric, value in metrics.items() if isinstance(value, list)]:
            self.table(f"{name}/{table}", ("step", *SAMPLE_COLUMNS), metrics.pop(table))
        named = {f"{name}/{metric}": value for metric, value in metrics.items()}
        self.call(lambda run: run.log(named | {f"{name}/global_step": row["step"]}))

    def built(self, stage: Stage, folder: Path, record: Record) -> None:
        name = metric_prefix(stage)
        self.summary({f"cost/{name}/{measure}": value for measure, value in record["cost"].items()})
        completions = list(History(folder / "rollouts.jsonl").rows())  # written by a stage that samples while it trains
        if completions:
            self.table(f"{name}/rollouts", ("step", *SAMPLE_COLUMNS), completions)

    def summary(self, metrics: dict[str, float]) -> None:
        """Log the numbers that describe the job, under the names they have in `run.json`."""
        self.call(lambda run: run.summary.update(metrics))

    def samples(self, rows: Iterable[dict[str, Any]]) -> None:
        """Log the first completions of the job."""
        self.table("samples", SAMPLE_COLUMNS, itertools.islice(rows, SAMPLE_ROWS))

    def before_after(self, rows: Iterable[dict[str, Any]]) -> None:
        """Log the first completions from before training beside those from after it."""
        self.table("before_after", COLUMNS, itertools.islice(rows, SAMPLE_ROWS))

    def report(self, cells: Path, figures: Iterable[Path]) -> None:
        """Log a sweep's figures and its table: a row for each cell, with its raw values and runs."""
        if self.run is None:
            return
        import wandb

        with cells.open(newline="") as file:
            reader = csv.DictReader(file)
            self.table("table", tuple(reader.fieldnames or ()), reader)
        images = {figure.stem: str(figure) for figure in figures}
        self.call(lambda run: run.log({name: wandb.Image(path) for name, path in images.items()}) if images else None)

    def table(self, name: str, columns: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> None:
        if self.run is None:
            return
        import wandb

        data: list[Any] = [[row.get(column) for column in columns] for row in rows]
        self.call(lambda run: run.log({name: wandb.Table(columns=list(columns), data=data)}))

    def new_metrics(self, stage: Stage, row: Row) -> Row:
        """Return the metrics of a row that are not logged yet: a resumed build repeats those before its checkpoint."""
        step = row["step"]
        last, known = self.last_logged.get(stage.identity, (step, set()))
        if step < last:
            return {}
        known = known if step == last else set()  # training and validation may each have a row at one step
        metrics = {name: value for name, value in row.items() if name != "step" and name not in known}
        self.last_logged[stage.identity] = (step, known | metrics.keys())
        return metrics

    def call(self, action: Callable[[Any], object]) -> None:
        """Pass the run to `action`. The first failure, as of W&B's process, ends the tracking, not the job."""
        if self.run is None:
            return
        try:
            action(self.run)
        except Exception as error:
            self.run = None
            self.notify(f"W&B: {one_line(error)}; the job goes on without tracking")


@contextmanager
def tracking(settings: TrackingConfig, card: JobCard, notify: Notify = print) -> Iterator[Tracker]:
    """Yield the tracker of one job. Its run ends as failed if the block raises anything, else as finished."""
    if not settings.enabled:
        yield Tracker()
        return
    # W&B replaces these hooks and never restores them: a later traceback would be printed twice.
    hooks = sys.exit, sys.excepthook
    run = open_run(settings, card, notify)
    exit_code = 1
    try:
        yield Tracker(run, notify)  # not `with run`: that prints the traceback of every exception passing through
        exit_code = 0
    finally:
        close_run(run, exit_code, notify)
        sys.exit, sys.excepthook = hooks


def open_run(settings: TrackingConfig, card: JobCard, notify: Notify) -> Any:
    """Return a new W&B run, or None where W&B is disabled or cannot start."""
    try:
        import wandb

        folder = Path(settings.folder).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # raises here; W&B would silently use the temporary folder
        mode = noninteractive_mode()
        if mode == "disabled":
            return None
        # With the mode set here, an offline session sends no telemetry either.
        wandb.setup(wandb.Settings(silent=True, x_service_wait=STARTUP_SECONDS, mode=mode))
        try:
            run = start_run(settings, card, folder, mode)
        except wandb.errors.CommError as error:  # there is a key, but the server cannot be reached
            notify(f"W&B: {one_line(error)}; going on offline")
            run = start_run(settings, card, folder, mode="offline")
        notify(f"W&B: offline; wandb sync {run.settings.sync_dir}" if run.offline else f"W&B: {run.url}")
        return run
    except Exception as error:
        notify(
            f"W&B did not start: {one_line(error)}; the job goes on without tracking (set tracking=off to disable it)"
        )
        return None


def start_run(settings: TrackingConfig, card: JobCard, folder: Path, mode: Any) -> Any:
    import wandb

    return wandb.init(
        project=settings.project,
        id=secrets.token_hex(6),  # an exported WANDB_RUN_ID would make one run of all the jobs
        **vars(card) | {"tags": [tag[:64] for tag in card.tags if tag]},  # W&B refuses the run for a longer tag
        dir=folder,
        mode=mode,
        reinit="finish_previous",
        settings=wandb.Settings(
            console="off",
            disable_git=True,  # the commit is a tag; W&B would log that of the working directory
        ),
    )


def noninteractive_mode() -> Any:
    """Return W&B's mode by its environment and settings, but `offline` where it would prompt for a key."""
    import wandb
    from wandb.sdk.lib import wbauth

    session = wandb.Settings()
    session.update_from_system_settings()
    session.update_from_env_vars(dict(os.environ))
    if session.mode in ("disabled", "offline", "dryrun"):
        return str(session.mode)
    # Not `wandb.login(prompt=False)`: it finds no key while a run is open, as in a forked child that has inherited one.
    key = wbauth.authenticate_session(host=session.base_url, source="prefsweep", prompt=False, update_session=False)
    return str(session.mode) if key else "offline"


def close_run(run: Any, exit_code: int, notify: Notify) -> None:
    """End the run and W&B's process: a child of multiprocessing runs no exit hook that would."""
    try:
        import wandb

        try:
            if run is not None:
                run.finish(exit_code=exit_code)
        finally:
            wandb.teardown()
    except (Exception, SystemExit) as error:  # teardown exits by itself if the process ended badly
        notify(f"W&B did not close: {one_line(error)}")


def metric_prefix(stage: Stage) -> str:
    """Return a prefix unique to the role: two stages of one name (`generate/base`, `generate/result`) need two axes."""
    return stage.role.replace("/", "_")


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
