"""One W&B run a job, read back from disk: what it says of the job, when it ends, and what it must never cost."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prefsweep.config.schema import TrackingConfig
from prefsweep.jobs.tracking import JobCard, Tracker, noninteractive_mode, tracking
from prefsweep.pipeline.history import History
from prefsweep.pipeline.stage import Stage
from wandb_reader import OfflineRun, read_only_run, read_run, run_folders

KEY = "0123456789" * 4
CONFIG = {"seed": 1, "model": {"name": "tiny", "path": None}, "stages": {"dpo": {"loss": ["sigmoid"], "beta": 0.1}}}
CARD = JobCard("tiny-dpo-1", "paper", "sft+dpo", ("tiny", "reviews", "abc123+"), CONFIG)
COST = {"seconds": 1.5, "peak_memory_bytes": 1024}


@dataclass
class ToyConfig:
    steps: int
    _target_: str = "toy.train"


def toy_stage(role: str, steps: int = 3) -> Stage:
    return Stage(role, ToyConfig(steps), {}, {}, hash_content=str)


def settings(folder: Path, *, enabled: bool = True) -> TrackingConfig:
    return TrackingConfig(enabled, project="prefsweep", folder=str(folder))


def train(tracker: Tracker, stage: Stage, folder: Path) -> None:
    """What the runner does with a stage that must be built: its history goes to disk and to the tracker."""
    folder.mkdir(parents=True)
    tracker.started(stage)
    history = History(folder / "history.jsonl", lambda row: tracker.logged(stage, row))
    for step in range(stage.config.steps):
        history.append(10 * step, {"loss": 1 / (1 + step), "accuracy": 0.5})
    tracker.built(stage, folder, {"cost": COST})


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Nothing that the machine says about W&B, and nothing left in its user's home."""
    for name in os.environ:
        if name.startswith("WANDB_"):
            patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.setenv("NETRC", str(home / "netrc"))
    patch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("CONFIG", "CACHE", "DATA"):
        patch.setenv(f"WANDB_{name}_DIR", str(home / name.lower()))


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch, tmp_path / "home")


@dataclass(frozen=True)
class TrackedJob:
    run: OfflineRun
    folder: Path
    lines: list[str]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackedJob]:
    """A whole job of two training stages, from a folder given relative to the working one."""
    folder, lines = tmp_path_factory.mktemp("job"), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder / "home")
        patch.chdir(folder)
        with tracking(settings(Path("runs")), CARD, lines.append) as tracker:
            train(tracker, toy_stage("sft"), folder / "sft")
            train(tracker, toy_stage("dpo", steps=2), folder / "dpo")
            tracker.samples({"prompt": f"p{i}", "completion": "a", "score": i / 2, "tokens": 7} for i in range(100))
            tracker.summary({"judge/mean": 0.25, "kl/base": 1.0})
        yield TrackedJob(read_only_run(folder / "runs"), folder, lines)


def test_a_run_says_what_the_job_is(job: TrackedJob) -> None:
    expected = {"name": "tiny-dpo-1", "group": "paper", "job_type": "sft+dpo", "project": "prefsweep"}
    assert job.run.metadata.items() >= expected.items()
    assert set(job.run.metadata["tags"]) == set(CARD.tags)
    assert job.run.config == CONFIG


def test_a_run_that_ends_well_is_finished(job: TrackedJob) -> None:
    assert (job.run.metadata["state"], job.run.metadata["exit_code"]) == ("finished", 0)


def test_each_stage_has_its_metrics_and_its_own_axis(job: TrackedJob) -> None:
    assert job.run.axes == {"sft/*": "sft/global_step", "dpo/*": "dpo/global_step"}
    assert [row["sft/global_step"] for row in job.run.rows("sft")] == [0, 10, 20]
    assert [row["dpo/global_step"] for row in job.run.rows("dpo")] == [0, 10]
    assert job.run.rows("dpo")[1] == {"dpo/global_step": 10, "dpo/loss": 0.5, "dpo/accuracy": 0.5}


def test_the_summary_has_the_evaluation_and_the_cost(job: TrackedJob) -> None:
    expected = {"judge/mean": 0.25, "kl/base": 1.0, "cost/sft/seconds": 1.5, "cost/dpo/peak_memory_bytes": 1024}
    assert job.run.summary.items() >= expected.items()


def test_the_first_64_samples_are_a_table(job: TrackedJob) -> None:
    table = job.run.tables["samples"]
    assert table["columns"] == ["prompt", "completion", "score"]
    assert len(table["data"]) == 64
    assert table["data"][3] == ["p3", "a", 1.5]


def test_what_a_stage_sampled_while_it_trained_is_a_table_of_its_own(tmp_path: Path) -> None:
    rows = [{"step": step, "prompt": "p", "completion": f"a{step}", "score": step / 2} for step in (1, 10)]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with tracking(settings(tmp_path), CARD) as tracker:
        tracker.built(toy_stage("ppo"), tmp_path, {"cost": COST})
    table = read_only_run(tmp_path).tables["ppo/rollouts"]
    assert table["columns"] == ["step", "prompt", "completion", "score"]
    assert table["data"] == [[1, "p", "a1", 0.5], [10, "p", "a10", 5.0]]


def test_a_stage_says_how_fast_it_goes_and_what_it_looks_like_and_keeps_neither(tmp_path: Path) -> None:
    stage, path = toy_stage("ppo"), tmp_path / "history.jsonl"
    with tracking(settings(tmp_path), CARD) as tracker:
        history = History(path, lambda row: tracker.logged(stage, row))
        for step in (1, 2):
            history.append(step, {"kl": 0.5})
            history.announce(step, {"episodes_per_second": 64.0})
            history.announce(step, {"rollouts": [{"step": step, "prompt": "p", "completion": "a", "score": 1.0}]})
        history.rewind(1)  # a resumed build tells nothing twice
    run = read_only_run(tmp_path)
    assert [row["ppo/kl"] for row in run.history if "ppo/kl" in row] == [0.5, 0.5]
    rates = [(row["ppo/global_step"], rate) for row in run.history if (rate := row.get("ppo/episodes_per_second"))]
    assert rates == [(1, 64.0), (2, 64.0)]
    assert run.tables["ppo/rollouts"]["data"] == [[2, "p", "a", 1.0]]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1, "kl": 0.5}]


def test_one_line_says_where_the_run_is(job: TrackedJob) -> None:
    (line,) = job.lines
    assert line == f"W&B: offline; wandb sync {run_folders(job.folder / 'runs')[0]}"


def test_a_reused_stage_replays_the_rows_it_logged_live(job: TrackedJob, tmp_path: Path) -> None:
    stage = toy_stage("sft")
    with tracking(settings(tmp_path), CARD) as tracker:
        tracker.reused(stage, job.folder / "sft", {"cost": COST})
        tracker.reused(stage, job.folder / "sft", {"cost": COST})
        tracker.reused(toy_stage("evaluate"), tmp_path / "has no history", {"cost": COST})
        train(tracker, toy_stage("dpo", steps=2), tmp_path / "dpo")
        tracker.reused(toy_stage("dpo", steps=2), tmp_path / "dpo", {"cost": COST})
    run = read_only_run(tmp_path)
    assert run.history == job.run.rows("sft") + job.run.rows("dpo")
    assert run.axes == job.run.axes


class Recorder:
    """In the place of a W&B run, where only the order of what is logged matters."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.axes: list[str] = []

    def define_metric(self, name: str, step_metric: str) -> None:
        self.axes.append(name)

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def test_a_resumed_build_repeats_no_row_and_steps_never_go_back() -> None:
    run, stage = Recorder(), toy_stage("ppo")
    tracker = Tracker(run)
    for step in (10, 20, 30, 10, 20, 30, 40):
        tracker.logged(stage, {"step": step, "loss": 1.0})
    assert [row["ppo/global_step"] for row in run.rows] == [10, 20, 30, 40]
    assert run.axes == ["ppo/*"]


def test_training_and_validation_may_log_at_one_step() -> None:
    run, stage = Recorder(), toy_stage("ppo")
    tracker = Tracker(run)
    for _ in range(2):
        tracker.logged(stage, {"step": 10, "loss": 1.0})
        tracker.logged(stage, {"step": 10, "validation/loss": 2.0})
    expected = [{"ppo/loss": 1.0, "ppo/global_step": 10}, {"ppo/validation/loss": 2.0, "ppo/global_step": 10}]
    assert run.rows == expected


def test_two_stages_of_one_name_have_two_axes() -> None:
    run = Recorder()
    tracker = Tracker(run)
    tracker.logged(toy_stage("reward/judge", steps=5), {"step": 10, "loss": 1.0})
    tracker.logged(toy_stage("reward/train"), {"step": 0, "loss": 2.0})
    assert run.axes == ["reward_judge/*", "reward_train/*"]
    assert [list(row) for row in run.rows] == [
        ["reward_judge/loss", "reward_judge/global_step"],
        ["reward_train/loss", "reward_train/global_step"],
    ]


@pytest.mark.parametrize("failure", [ValueError("boom"), KeyboardInterrupt(), SystemExit(0)], ids=repr)
def test_a_crash_closes_the_run_as_failed(failure: BaseException, tmp_path: Path, capfd: Any) -> None:
    hooks = sys.exit, sys.excepthook
    lines: list[str] = []
    with pytest.raises(type(failure)) as raised, tracking(settings(tmp_path), CARD, lines.append) as tracker:
        tracker.logged(toy_stage("sft"), {"step": 0, "loss": float("nan")})
        raise failure
    assert raised.value is failure
    run = read_only_run(tmp_path)
    assert (run.metadata["state"], run.metadata["exit_code"]) == ("failed", 1)
    assert run.rows("sft") == [{"sft/loss": "NaN", "sft/global_step": 0}]
    assert len(lines) == 1
    assert capfd.readouterr() == ("", "")
    assert (sys.exit, sys.excepthook) == hooks


def test_a_process_that_runs_two_jobs_makes_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "shared")  # would make one run of both
    for _ in range(2):
        with tracking(settings(tmp_path), CARD) as tracker:
            tracker.summary({"judge/mean": 1.0})
        assert "WANDB_SERVICE" not in os.environ
    first, second = map(read_run, run_folders(tmp_path))
    assert first.metadata["run_id"] != second.metadata["run_id"]
    assert {first.metadata["state"], second.metadata["state"]} == {"finished"}


def test_a_job_opened_inside_another_ends_the_other(tmp_path: Path) -> None:
    lines: list[str] = []
    with tracking(settings(tmp_path / "outer"), CARD, lines.append) as outer:
        outer.summary({"x": 1.0})
        with tracking(settings(tmp_path / "inner"), CARD, lines.append) as inner:
            inner.summary({"x": 2.0})
        outer.summary({"x": 3.0})
    assert read_only_run(tmp_path / "outer").summary == {"x": 1.0}
    assert read_only_run(tmp_path / "inner").summary == {"x": 2.0}


def test_tags_that_wandb_would_refuse_are_cut(tmp_path: Path) -> None:
    with tracking(settings(tmp_path), JobCard("name", None, "dpo", ("", "t" * 100), {})):
        pass
    run = read_only_run(tmp_path)
    assert (run.metadata["tags"], run.metadata["group"]) == (["t" * 64], None)


@pytest.mark.parametrize("blocked", ["", "wandb"])
def test_a_folder_that_cannot_be_written_costs_a_line_and_no_job(blocked: str, tmp_path: Path, capfd: Any) -> None:
    folder = tmp_path / "runs"
    if blocked:
        folder.mkdir()
    (folder / blocked).write_text("a file, where a folder must be")
    lines: list[str] = []
    with tracking(settings(folder), CARD, lines.append) as tracker:
        train(tracker, toy_stage("sft"), tmp_path / "sft")
        tracker.samples([{"prompt": "p", "completion": "a", "score": 1.0}])
    (line,) = lines
    assert line.startswith("W&B did not start: ")
    assert str(folder) in line
    assert "\n" not in line
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_not_replaced_by_another(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    lines: list[str] = []
    with tracking(settings(tmp_path / "runs"), CARD, lines.append) as tracker:
        tracker.summary({"judge/mean": 1.0})
    assert len(lines) == 1
    assert lines[0].startswith("W&B did not start: PermissionError")


def test_a_wandb_that_dies_in_the_middle_costs_no_job(tmp_path: Path, capfd: Any) -> None:
    lines: list[str] = []
    with tracking(settings(tmp_path), CARD, lines.append) as tracker:
        end_service_of(os.getpid())
        train(tracker, toy_stage("sft"), tmp_path / "sft")
        tracker.summary({"judge/mean": 1.0})
    assert len((tmp_path / "sft" / "history.jsonl").read_text().splitlines()) == 3
    assert any("the job goes on without tracking" in line for line in lines)
    assert len(lines) <= 3
    assert capfd.readouterr() == ("", "")
    with tracking(settings(tmp_path / "next"), CARD):
        pass
    assert read_only_run(tmp_path / "next").metadata["state"] == "finished"


def end_service_of(parent: int) -> None:
    """Kill the W&B process that `parent` started, and wait until it is gone."""
    listed = subprocess.run(
        ["pgrep", "-P", str(parent), "-f", "wandb-core"], capture_output=True, text=True, check=True
    )
    (service,) = map(int, listed.stdout.split())
    os.kill(service, 9)
    os.waitid(os.P_PID, service, os.WEXITED | os.WNOWAIT)


def test_a_server_that_cannot_be_reached_means_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    init = wandb.init

    def unreachable(*, mode: Any, **kwargs: Any) -> Any:
        if mode == "online":
            raise wandb.errors.CommError("no such\nhost")
        return init(mode=mode, **kwargs)

    monkeypatch.setattr(wandb, "init", unreachable)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    lines: list[str] = []
    with tracking(settings(tmp_path), CARD, lines.append) as tracker:
        tracker.summary({"judge/mean": 1.0})
    assert lines[0] == "W&B: CommError: no such host; going on offline"
    assert read_only_run(tmp_path).summary == {"judge/mean": 1.0}


@pytest.mark.parametrize(
    ("environment", "netrc", "mode"),
    [
        ({}, "", "offline"),
        ({"WANDB_MODE": "online"}, "", "offline"),
        ({"WANDB_API_KEY": KEY}, "", "online"),
        ({}, f"machine api.wandb.ai login user password {KEY}\n", "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "", "offline"),
        ({"WANDB_MODE": "disabled"}, "", "disabled"),
    ],
)
def test_the_mode_follows_the_environment_and_the_login(
    environment: dict[str, str], netrc: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "netrc").write_text(netrc)
    (tmp_path / "home" / "netrc").chmod(0o600)
    wandb.teardown()
    try:
        assert noninteractive_mode() == mode
    finally:
        wandb.teardown()


def test_wandb_mode_disabled_makes_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    lines: list[str] = []
    with tracking(settings(tmp_path), CARD, lines.append) as tracker:
        train(tracker, toy_stage("sft"), tmp_path / "sft")
        tracker.samples([{"prompt": "p", "completion": "a", "score": 1.0}])
    assert (run_folders(tmp_path), lines) == ([], [])


def run_script(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own that has this file's helpers, a terminal nobody sits at, and `folder` to work in."""
    file = folder / "script.py"
    file.write_text("from pathlib import Path\nfrom test_tracking import *\n" + textwrap.dedent(script))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.run(
        [sys.executable, file.name],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_tracking_wandb_is_not_imported_and_nothing_is_written(tmp_path: Path) -> None:
    script = """
    folder = Path("runs")
    with tracking(settings(folder, enabled=False), CARD) as tracker:
        train(tracker, toy_stage("sft"), Path("sft"))
        tracker.reused(toy_stage("dpo"), Path("sft"), {"cost": COST})
        tracker.samples([{"prompt": "p", "completion": "a", "score": 1.0}])
        tracker.summary({"judge/mean": 1.0})
    print(folder.exists(), sorted(name for name in sys.modules if name.startswith("wandb")))
    """
    done = run_script(script, tmp_path)
    assert (done.stdout, done.stderr) == ("False ['wandb_reader']\n", "")


def test_without_a_key_nothing_is_asked_and_the_terminal_stays_quiet(tmp_path: Path) -> None:
    script = """
    os.close(0)
    with tracking(settings(Path("runs")), CARD) as tracker:
        train(tracker, toy_stage("sft"), Path("sft"))
        print("in the job")
    raise ValueError("told once")
    """
    done = run_script(script, tmp_path)
    assert done.stdout.splitlines()[0].startswith("W&B: offline; ")
    assert done.stdout.splitlines()[1:] == ["in the job"]
    assert done.stderr.count("told once") == 2  # the line of code, and what it raised: one traceback
    metadata = read_only_run(tmp_path / "runs").metadata
    assert (metadata["state"], metadata["console_lines"]) == ("finished", 0)


def test_children_forked_from_a_server_that_imported_wandb_each_have_a_run(tmp_path: Path) -> None:
    script = """
    import multiprocessing

    def child(number):
        card = JobCard(f"job-{number}", "sweep", "dpo", (), {"seed": number})
        with tracking(settings(Path("runs")), card) as tracker:
            assert "wandb" in sys.modules
            tracker.summary({"judge/mean": float(number)})
        left = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "wandb-core"], capture_output=True, text=True)
        assert left.stdout == "", "W&B's process outlives the job"

    if __name__ == "__main__":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["wandb"])
        children = [context.Process(target=child, args=(number,)) for number in (1, 2)]
        for process in children:
            process.start()
        for process in children:
            process.join()
        print(json.dumps([process.exitcode for process in children]))
    """
    done = run_script(script, tmp_path)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0], done.stderr
    runs = [read_run(folder) for folder in run_folders(tmp_path / "runs")]
    assert {run.metadata["name"]: run.summary["judge/mean"] for run in runs} == {"job-1": 1.0, "job-2": 2.0}
    assert all(run.metadata["exit_code"] == 0 for run in runs)
