"""The W&B run of one job, or nothing: opened here, always closed here, and never the reason why a job fails."""

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
from prefsweep.pipeline.history import History, Row
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Record

SAMPLE_COLUMNS = ("prompt", "completion", "score")
BEFORE_AFTER_COLUMNS = ("prompt", "before", "score_before", "after", "score_after")
SAMPLE_ROWS = 64
STARTUP_SECONDS = 300.0  # W&B waits 30 for its service process: too little where the jobs of a grid start together

Say = Callable[[str], None]


@dataclass(frozen=True)
class JobCard:
    """What a job shows of itself, in W&B's words: `group` is its sweep, `job_type` its method."""

    name: str
    group: str | None
    job_type: str
    tags: tuple[str, ...]
    config: dict[str, Any]


class Tracker:
    """Listens to the stages of one job and tells W&B; without a run it does nothing.

    The metrics of a stage are named `{stage}/{metric}` and lie on the stage's own axis, `{stage}/global_step`; a list
    of samples among them is a table.
    """

    def __init__(self, run: Any = None, say: Say = print):
        self.run = run
        self.say = say
        self.axes: set[str] = set()
        self.told: dict[str, tuple[int, set[str]]] = {}  # identity → its last step, the metrics told at that step

    def reused(self, stage: Stage, folder: Path, record: Record) -> None:
        """A finished stage shows the curve of the job that built it; rows told before, live or not, are no news."""
        if self.run is not None:
            for row in History(folder / "history.jsonl").rows():
                self.logged(stage, row)

    def started(self, stage: Stage) -> None: ...

    def logged(self, stage: Stage, row: Row) -> None:
        metrics = self.news(stage, row)
        if not metrics:
            return
        name = metric_prefix(stage)
        if name not in self.axes:
            self.axes.add(name)
            self.tell(lambda run: run.define_metric(f"{name}/*", step_metric=f"{name}/global_step"))
        for table in [metric for metric, value in metrics.items() if isinstance(value, list)]:
            self.table(f"{name}/{table}", ("step", *SAMPLE_COLUMNS), metrics.pop(table))
        named = {f"{name}/{metric}": value for metric, value in metrics.items()}
        self.tell(lambda run: run.log(named | {f"{name}/global_step": row["step"]}))

    def built(self, stage: Stage, folder: Path, record: Record) -> None:
        name = metric_prefix(stage)
        self.summary({f"cost/{name}/{measure}": value for measure, value in record["cost"].items()})
        completions = list(History(folder / "rollouts.jsonl").rows())  # of a stage that samples while it trains
        if completions:
            self.table(f"{name}/rollouts", ("step", *SAMPLE_COLUMNS), completions)

    def summary(self, metrics: dict[str, float]) -> None:
        """The numbers that stand for the whole job, under the names they have in `run.json`."""
        self.tell(lambda run: run.summary.update(metrics))

    def samples(self, rows: Iterable[dict[str, Any]]) -> None:
        """The first answers of the job, to read beside its numbers."""
        self.table("samples", SAMPLE_COLUMNS, itertools.islice(rows, SAMPLE_ROWS))

    def before_after(self, rows: Iterable[dict[str, Any]]) -> None:
        """The first answers of the method's start beside those of its result."""
        self.table("before_after", BEFORE_AFTER_COLUMNS, itertools.islice(rows, SAMPLE_ROWS))

    def report(self, cells: Path, figures: Iterable[Path]) -> None:
        """A sweep's table, a row a cell with its raw values and runs, and its figures."""
        if self.run is None:
            return
        import wandb

        with cells.open(newline="") as file:
            reader = csv.DictReader(file)
            self.table("table", tuple(reader.fieldnames or ()), reader)
        drawn = {figure.stem: str(figure) for figure in figures}
        self.tell(lambda run: run.log({name: wandb.Image(path) for name, path in drawn.items()}) if drawn else None)

    def table(self, name: str, columns: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> None:
        if self.run is None:
            return
        import wandb

        data: list[Any] = [[row.get(column) for column in columns] for row in rows]
        self.tell(lambda run: run.log({name: wandb.Table(columns=list(columns), data=data)}))

    def news(self, stage: Stage, row: Row) -> Row:
        """What of a row has not been told: a resumed build tells again what lies before its checkpoint."""
        step = row["step"]
        last, known = self.told.get(stage.identity, (step, set()))
        if step < last:
            return {}
        known = known if step == last else set()  # training and validation may each have a row at one step
        metrics = {name: value for name, value in row.items() if name != "step" and name not in known}
        self.told[stage.identity] = (step, known | metrics.keys())
        return metrics

    def tell(self, action: Callable[[Any], object]) -> None:
        """Do one thing with the run. The first failure (W&B's process died, say) ends the tracking, not the job."""
        if self.run is None:
            return
        try:
            action(self.run)
        except Exception as error:
            self.run = None
            self.say(f"W&B: {in_one_line(error)}; the job goes on without tracking")


@contextmanager
def tracking(settings: TrackingConfig, card: JobCard, say: Say = print) -> Iterator[Tracker]:
    """The tracker of one job. Its run ends as finished, or as failed if the block raises anything at all."""
    if not settings.enabled:
        yield Tracker()
        return
    # W&B's process puts its own hooks here and never takes them back: a later traceback would be printed twice.
    hooks = sys.exit, sys.excepthook
    run = open_run(settings, card, say)
    exit_code = 1
    try:
        yield Tracker(run, say)  # not `with run`: that prints the traceback of every exception passing through
        exit_code = 0
    finally:
        close_run(run, exit_code, say)
        sys.exit, sys.excepthook = hooks


def open_run(settings: TrackingConfig, card: JobCard, say: Say) -> Any:
    """A new W&B run, or None where W&B is switched off or cannot start."""
    try:
        import wandb

        folder = Path(settings.folder).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # where W&B cannot write, it silently takes the temporary folder
        mode = mode_without_asking()
        if mode == "disabled":
            return None
        # With the mode said here, an offline session sends no telemetry either.
        wandb.setup(wandb.Settings(silent=True, x_service_wait=STARTUP_SECONDS, mode=mode))
        try:
            run = start_run(settings, card, folder, mode)
        except wandb.errors.CommError as error:  # a key, and a machine that cannot reach the server
            say(f"W&B: {in_one_line(error)}; going on offline")
            run = start_run(settings, card, folder, mode="offline")
        say(f"W&B: offline; wandb sync {run.settings.sync_dir}" if run.offline else f"W&B: {run.url}")
        return run
    except Exception as error:
        say(f"W&B did not start: {in_one_line(error)}; the job goes on without tracking (tracking=off says so)")
        return None


def start_run(settings: TrackingConfig, card: JobCard, folder: Path, mode: Any) -> Any:
    import wandb

    return wandb.init(
        project=settings.project,
        entity=settings.entity,
        id=secrets.token_hex(6),  # an exported WANDB_RUN_ID would make one run of all the jobs
        **vars(card) | {"tags": [tag[:64] for tag in card.tags if tag]},  # W&B refuses the run for a longer tag
        dir=folder,
        mode=mode,
        reinit="finish_previous",
        settings=wandb.Settings(
            console="off",
            disable_git=True,  # the commit is a tag; W&B would take that of the folder a job is started in
            x_disable_stats=not settings.system_metrics,
        ),
    )


def mode_without_asking() -> Any:
    """W&B's mode by its environment and settings, but offline where it would have to ask for a key."""
    import wandb
    from wandb.sdk.lib import wbauth

    session = wandb.Settings()
    session.update_from_system_settings()
    session.update_from_env_vars(dict(os.environ))
    if session.mode in ("disabled", "offline", "dryrun"):
        return str(session.mode)
    # Not `wandb.login(prompt=False)`: it finds no key while a run is open, such as one inherited by a forked child.
    key = wbauth.authenticate_session(host=session.base_url, source="prefsweep", prompt=False, update_session=False)
    return str(session.mode) if key else "offline"


def close_run(run: Any, exit_code: int, say: Say) -> None:
    """End the run, and W&B's process with it: in a child of multiprocessing no exit hook would."""
    try:
        import wandb

        try:
            if run is not None:
                run.finish(exit_code=exit_code)
        finally:
            wandb.teardown()
    except (Exception, SystemExit) as error:  # teardown exits by itself if the process ended badly
        say(f"W&B did not close: {in_one_line(error)}")


def metric_prefix(stage: Stage) -> str:
    """The stage's name; two stages of one name (`reward/judge` and `reward/train`) must not share an axis."""
    return stage.role.replace("/", "_")


def in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
