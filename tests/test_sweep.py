"""A whole small sweep by the real command: what is shared and told, what a second time costs, what a failure does."""

import html
import json
import shutil
from pathlib import Path

import pytest

from architectures import save_classifier
from prefsweep.data.datasets.synthetic import preferences
from wandb_reader import read_run, run_folders
from workplace import Workplace

GRID = ("-m", "method=base,sft,dpo,sft+dpo", "seed=1,2", "jobs=2", "sweep=small")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    workplace = Workplace(tmp_path_factory.mktemp("swept"))
    done = workplace.run(*GRID, anew=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (workplace.folder / "first.txt").write_text(done.stdout)
    return workplace


def test_every_job_finishes_and_equal_jobs_run_once(swept: Workplace) -> None:
    jobs = swept.jobs("small")
    assert sorted(jobs) == sorted(["base/1", *(f"{m}/{s}" for m in ("sft", "dpo", "sft+dpo") for s in (1, 2))])
    assert {job["status"] for job in jobs.values()} == {"finished"}


def test_what_jobs_have_in_common_is_built_once(swept: Workplace) -> None:
    """One base for all seeds; an sft a seed, shared by sft and sft+dpo; the base's reference shared by both dpo."""
    counts = {
        name: len(swept.stages(name)) for name in ("pretrain", "sft", "reference_logps", "dpo", "generate", "evaluate")
    }
    assert counts == {"pretrain": 1, "sft": 2, "reference_logps": 3, "dpo": 4, "generate": 7, "evaluate": 7}
    jobs = swept.jobs("small")
    for seed in (1, 2):
        assert jobs[f"sft/{seed}"]["stages"]["sft"] == jobs[f"sft+dpo/{seed}"]["stages"]["sft"]
    assert len({job["stages"]["generate/base"] for job in jobs.values()}) == 1
    paid = [job["cost"]["stages"]["pretrain"]["paid"] for job in jobs.values() if "pretrain" in job["cost"]["stages"]]
    assert paid.count(True) == 1


def test_a_metric_is_the_mean_of_what_is_said_of_each_answer(swept: Workplace) -> None:
    for job in swept.jobs("small").values():
        folder = swept.folder / "outputs/stages/evaluate" / job["stages"]["evaluate"]
        rows = [json.loads(line) for line in (folder / "completions.jsonl").open()]
        assert all(
            row["group"] and {"judge/mean", "kl/base", "text/ended", "text/rougeL"} <= row["values"].keys()
            for row in rows
        )
        for name in {name for row in rows for name in row["values"]}:
            values = [row["values"][name] for row in rows if name in row["values"]]
            assert job["metrics"][name] == pytest.approx(sum(values) / len(values)), name
        assert 0 < job["metrics"]["judge/win_rate_chosen"] < 1
        assert job["metrics"]["judge/accuracy"] == 1, "the truth agrees with clean labels"


def test_nothing_left_the_machine(swept: Workplace) -> None:
    assert not swept.sockets.exists()


def test_it_ends_with_a_table_and_a_figure(swept: Workplace) -> None:
    folder = swept.folder / "multirun_sweeps/small"
    table = (folder / "table.md").read_text()
    assert all(method in table for method in ("base", "sft", "dpo", "sft+dpo"))
    assert (folder / "figure.png").stat().st_size > 10_000
    page = html.unescape((folder / "report.html").read_text())
    assert all(word in page for word in ("prefsweep ", *GRID))
    assert "judge score" in (swept.folder / "first.txt").read_text()


def test_each_job_leaves_one_tracked_run_that_tells_all(swept: Workplace) -> None:
    runs = {run.metadata["name"]: run for run in map(read_run, run_folders(swept.folder))}
    jobs = {job["name"]: job for job in swept.jobs("small").values()}
    report = runs.pop("small-report")  # the sweep's own
    assert (report.metadata["group"], report.metadata["job_type"]) == ("small", "report")
    assert {"method", "metric", "mean", "folders"} <= set(report.tables["table"]["columns"])
    assert {"table", "figure"} <= set(report.summary)
    assert sorted(runs) == sorted(jobs)
    for name, job in jobs.items():
        run = runs[name]
        assert run.metadata["group"] == "small"
        assert run.metadata["job_type"] == job["config"]["method"]["name"]
        assert run.summary["judge/mean"] == job["metrics"]["judge/mean"]
        assert run.config["stages"] == job["config"]["stages"]
        trained = {stage for stage in job["stages"] if stage in ("pretrain", "sft", "dpo")}
        assert {stage for stage in trained if any(f"{stage}/loss" in row for row in run.history)} == trained
        for stage in trained:
            steps = [row[f"{stage}/global_step"] for row in run.history if f"{stage}/global_step" in row]
            assert steps == sorted(steps) and steps[-1] == 4


def test_the_same_command_again_builds_nothing_and_says_the_same(swept: Workplace) -> None:
    before, folders = swept.jobs("small"), len(run_folders(swept.folder))
    done = swept.run(*GRID)
    after = swept.jobs("small")
    assert done.returncode == 0
    assert {name: job["metrics"] for name, job in after.items()} == {
        name: job["metrics"] for name, job in before.items()
    }
    assert not any(stage["paid"] for job in after.values() for stage in job["cost"]["stages"].values())
    assert len(run_folders(swept.folder)) == folders
    assert len(swept.stages("dpo")) == 4


def test_another_folder_gives_the_same_numbers_to_the_last_bit(swept: Workplace, tmp_path: Path) -> None:
    alone = Workplace(tmp_path)
    assert alone.run("method=sft+dpo", "seed=2", "tracking=off").returncode == 0
    run, job = alone.single(), swept.jobs("small")["sft+dpo/2"]
    assert run["metrics"] == job["metrics"]
    assert run["stages"] == job["stages"]
    assert not (tmp_path / "wandb").exists()
    for name in ("sft", "dpo"):
        (ours,) = alone.stages(name)
        theirs = swept.folder / "outputs/stages" / name / ours.name
        hashes = [json.loads((folder / "record.json").read_text())["files"] for folder in (ours, theirs)]
        assert hashes[0] == hashes[1]


def test_a_stage_that_is_lost_is_built_again_and_alone(swept: Workplace, tmp_path: Path) -> None:
    shutil.copytree(swept.folder, tmp_path / "copy")
    workplace = Workplace(tmp_path / "copy")
    before = workplace.jobs("small")["dpo/1"]
    for role in ("evaluate", "judge_completions/result"):
        shutil.rmtree(workplace.folder / "outputs/stages" / role.partition("/")[0] / before["stages"][role])
    assert workplace.run("method=dpo", "seed=1", "tracking=off").returncode == 0
    again = workplace.single()
    assert again["metrics"] == before["metrics"]
    assert {role for role, cost in again["cost"]["stages"].items() if cost["paid"]} == {
        "evaluate",
        "judge_completions/result",
    }


# -------------------------------------------------------------------------------------------------------- failures


def sabotage(workplace: Workplace, how: str) -> tuple[str, ...]:
    (workplace.folder / "mine/experiment").mkdir(parents=True)
    (workplace.folder / "mine/experiment/sabotaged.yaml").write_text(
        f"# @package _global_\nstages: {{dpo: {{_target_: saboteur.{how}}}}}\ngrid:\n  - method: [dpo, sft]\n"
    )
    return ("-cd", "mine", "experiment=sabotaged")


@pytest.mark.parametrize(
    ("how", "status", "error"),
    [
        ("killed", "failed", "killed by signal 9"),
        pytest.param("buggy", "failed", "KeyError: 'a planted bug'", marks=pytest.mark.slow),
        pytest.param("diverged", "diverged", "dpo: the loss was nan at step 7", marks=pytest.mark.slow),
    ],
)
def test_a_job_that_fails_costs_itself_alone(tmp_path: Path, how: str, status: str, error: str) -> None:
    workplace = Workplace(tmp_path)
    done = workplace.run(*sabotage(workplace, how), "tracking=off")
    jobs = workplace.jobs("sabotaged")
    assert done.returncode == 1
    assert (jobs["dpo/1"]["status"], jobs["dpo/1"]["error"]) == (status, error)
    assert jobs["sft/1"]["status"] == "finished"
    assert error in done.stdout
    assert "sft" in (tmp_path / "multirun_sweeps/sabotaged/table.md").read_text()
    if how == "buggy":
        (log,) = (tmp_path / "multirun_sweeps/sabotaged").glob("*_dpo_*/job.log")
        assert "Traceback" in log.read_text() and "saboteur.py" in log.read_text()


def test_a_sweep_of_which_nothing_finished_has_its_report_too(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    words = ("-m", "method=sft", "seed=1,2", "sweep=s", "stages.sft._target_=saboteur.buggy", "tracking=off")
    assert workplace.run(*words).returncode == 1
    sweep = tmp_path / "multirun_sweeps/s"
    assert {job["status"] for job in workplace.jobs("s").values()} == {"failed"}
    page = (sweep / "report.html").read_text()
    assert "0 of 2 runs finished" in page and page.count("a planted bug") >= 2 and "saboteur.py" in page
    assert "0 of 2 (2 failed)" in (sweep / "table.md").read_text()


def test_a_run_that_a_guard_stopped_is_judged_and_says_so(swept: Workplace, tmp_path: Path) -> None:
    shutil.copytree(swept.folder / "outputs", tmp_path / "outputs")
    workplace = Workplace(tmp_path)
    words = ("-m", "method=dpo", "seed=1", "sweep=tripped", "tracking=off", "stages.dpo._target_=saboteur.tripped")
    done = workplace.run(*words)
    assert done.returncode == 0
    assert "diverged" in done.stdout
    (job,) = workplace.jobs("tripped").values()
    assert job["status"] == "diverged"
    assert job["error"] == "dpo: the entropy fell to 0.0001"
    assert "judge/mean" in job["metrics"]
    assert "stays in the mean" in done.stdout


def test_a_polite_kill_of_a_run_closes_its_files_and_its_tracking(swept: Workplace, tmp_path: Path) -> None:
    shutil.copytree(swept.folder / "outputs/stages", tmp_path / "outputs/stages")
    workplace = Workplace(tmp_path)
    done = workplace.run("method=dpo", "stages.dpo._target_=saboteur.terminated")
    assert done.returncode == 143
    assert workplace.single()["status"] == "failed"
    (folder,) = run_folders(tmp_path)
    assert read_run(folder).metadata["exit_code"] == 1
    assert workplace.run("method=dpo", "seed=1").returncode == 0


def test_a_bug_keeps_its_traceback_and_exits_1(swept: Workplace, tmp_path: Path) -> None:
    shutil.copytree(swept.folder / "outputs/stages", tmp_path / "outputs/stages")
    workplace = Workplace(tmp_path)
    done = workplace.run("method=dpo", "stages.dpo._target_=saboteur.buggy", "tracking=off")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "a planted bug" in done.stderr
    assert workplace.single()["status"] == "failed"


# ------------------------------------------------------------------------------- pairs and a model of one's own


def test_a_local_model_and_local_pairs_go_the_same_way(tmp_path: Path, model_folders: dict[str, Path]) -> None:
    pairs = preferences(60, seed=8, coherence=0.74, noise=0.0)
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    workplace = Workplace(tmp_path)
    judge = save_classifier("distilbert", ("NEGATIVE", "POSITIVE"), tmp_path / "judge")
    mine = (f"model.path={model_folders['opt']}", "dataset.path=pairs.jsonl", "dataset.validation=8", "dataset.test=8")
    done = workplace.command(
        *(
            "model=gpt2",
            "dataset=local",
            "method=sft+dpo",
            "debug=smoke",
            "tracking=off",
            "runtime=cpu",
            "model.from_scratch=false",
        ),
        *("scorer@judge=distilbert-imdb", f"judge.path={judge}"),
        *mine,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = workplace.single()
    assert run["status"] == "finished"
    assert "pretrain" not in run["stages"]
    assert run["metrics"]["kl/base"] > 0 and not workplace.sockets.exists()


def test_a_model_that_is_nowhere_is_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    done = workplace.command("model=gpt2", "method=base", "tracking=off", HF_HOME=str(tmp_path / "empty"))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "openai-community/gpt2: not in the local cache" in line
    assert "hf download openai-community/gpt2 --revision" in line and "model.path=FOLDER" in line
    assert workplace.single()["status"] == "failed"
