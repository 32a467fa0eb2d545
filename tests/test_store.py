"""Presence means success: what is whole is never built again, what is not is set aside, kept and built again."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import toy
from prefsweep.pipeline.runner import run
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Record

WHOLE_RUN = ["started gather", *(f"logged gather {step}" for step in range(1, 5)), "built gather"]
WHOLE_RUN += ["started learn", *(f"logged learn {step}" for step in range(1, 11)), "built learn"]
WHOLE_RUN += ["started judge", "built judge"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def edit(path: Path) -> None:
    """One byte, the size as it was."""
    later = path.stat().st_mtime_ns + 1
    path.write_bytes(b"9" + path.read_bytes()[1:])
    os.utime(path, ns=(later, later))


def turn_into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def history_steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "history.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def results(records: dict[str, Record]) -> dict[str, object]:
    return {role: (record["metrics"], record["files"]) for role, record in records.items()}


def test_a_run_builds_each_stage_once_and_tells_it_in_order(tmp_path: Path) -> None:
    records, listener = toy.build(tmp_path)
    assert listener.events == WHOLE_RUN
    assert list(records) == ["gather", "learn", "judge"]
    assert records["judge"]["metrics"] == records["learn"]["metrics"]
    assert set(records["learn"]["files"]) == {"value.json", "history.jsonl"}
    assert set(records["gather"]["files"]) == {"parts/numbers.json", "history.jsonl"}
    assert not list(tmp_path.rglob(".building/*"))


def test_a_second_run_builds_nothing(tmp_path: Path) -> None:
    first, _ = toy.build(tmp_path)
    before = toy.diary(tmp_path)
    second, listener = toy.build(tmp_path)
    assert toy.diary(tmp_path) == before
    assert listener.events == ["reused gather", "reused learn", "reused judge"]
    assert second == first


def test_a_run_builds_only_what_has_changed(tmp_path: Path) -> None:
    toy.build(tmp_path)
    _, listener = toy.build(tmp_path, toy.toy_plan(tmp_path, {"learn.rate": 0.5}))
    assert [event for event in listener.events if "logged" not in event] == [
        *("reused gather", "started learn", "built learn", "started judge", "built judge")
    ]


def test_a_pipeline_runs_without_torch(tmp_path: Path) -> None:
    code = "import sys, toy, pathlib; toy.build(pathlib.Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert "judge began" in toy.diary(tmp_path)


def test_a_store_that_is_moved_keeps_what_it_has(tmp_path: Path) -> None:
    toy.build(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    _, listener = toy.build(tmp_path / "there")
    assert listener.events == ["reused gather", "reused learn", "reused judge"]


def test_the_inputs_of_a_finished_target_are_not_built_again(tmp_path: Path) -> None:
    toy.build(tmp_path)
    before = toy.diary(tmp_path)
    shutil.rmtree(toy.artifact(tmp_path, "gather"))
    shutil.rmtree(toy.artifact(tmp_path, "learn"))
    records, listener = toy.build(tmp_path)
    assert toy.diary(tmp_path) == before
    assert list(records) == ["judge"] and listener.events == ["reused judge"]


def test_two_roles_with_one_identity_are_built_and_reported_once(tmp_path: Path) -> None:
    graph = {**toy.GRAPH, "judge/start": {"model": "learn"}, "judge/end": {"model": "learn"}}
    graph["judge"] = {"start": "judge/start", "end": "judge/end"}
    records, listener = toy.build(tmp_path, toy.toy_plan(tmp_path, graph=graph))
    assert toy.diary(tmp_path, "judge") == ["judge began"] * 2  # the shared one and the target
    assert [event for event in listener.events if "judge" in event] == [
        *("started judge/start", "built judge/start", "started judge", "built judge")
    ]
    assert records["judge/start"] == records["judge/end"]
    assert records["judge"]["metrics"]["value"] == 2 * records["learn"]["metrics"]["value"]
    _, listener = toy.build(tmp_path, toy.toy_plan(tmp_path, graph=graph))
    assert listener.events == ["reused gather", "reused learn", "reused judge/start", "reused judge"]


# ------------------------------------------------------------------------------------------------------------- damage

RUINED_RECORDS = {"empty": "", "torn": '{"stage": "lea', "null": "null", "list": "[]", "nothing in it": "{}"}
RUINED_RECORDS |= {"no list of files": '{"files": null}', "files without hashes": '{"files": ["value.json"]}'}
DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda folder: truncate(folder / "value.json"),
    "edited": lambda folder: edit(folder / "value.json"),
    "history edited": lambda folder: truncate(folder / "history.jsonl"),
    "file deleted": lambda folder: (folder / "value.json").unlink(),
    "file now a folder": lambda folder: turn_into_a_folder(folder / "value.json"),
    "record deleted": lambda folder: (folder / "record.json").unlink(),
    "record in bytes": lambda folder: (folder / "record.json").write_bytes(b"\xff\xfe"),
}
DAMAGES |= {
    f"record {name}": lambda folder, text=text: (folder / "record.json").write_text(text)
    for name, text in RUINED_RECORDS.items()
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_is_set_aside_and_built_again_the_same(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    plan = toy.toy_plan(tmp_path, target="learn")
    first, _ = toy.build(tmp_path, plan)
    folder = toy.artifact(tmp_path, "learn")
    damage(folder)
    damaged = contents(folder)
    second, listener = toy.build(tmp_path, toy.toy_plan(tmp_path, target="learn"))
    assert results(second) == results(first)
    assert listener.events[0] == "reused gather" and listener.events[-1] == "built learn"
    assert [contents(aside) for aside in folder.parent.glob(".damaged-*")] == [damaged], "it was not kept as it was"
    assert len(toy.diary(tmp_path, str(folder))) == 1, "nobody was told"
    assert toy.build(tmp_path, plan)[1].events == ["reused gather", "reused learn"]


def test_a_damaged_input_is_built_again_only_when_it_is_needed(tmp_path: Path) -> None:
    first, _ = toy.build(tmp_path)
    edit(toy.artifact(tmp_path, "learn") / "value.json")
    assert "started learn" not in toy.build(tmp_path)[1].events
    shutil.rmtree(toy.artifact(tmp_path, "judge"))
    second, listener = toy.build(tmp_path)
    assert "built learn" in listener.events and second["judge"]["files"] == first["judge"]["files"]


@pytest.mark.parametrize("text", RUINED_RECORDS.values(), ids=RUINED_RECORDS.keys())
def test_a_ruined_record_is_not_listed(tmp_path: Path, text: str) -> None:
    toy.build(tmp_path)
    (toy.artifact(tmp_path, "learn") / "record.json").write_text(text)
    assert list(toy.toy_store(tmp_path).records("learn")) == []


def test_only_finished_stages_are_listed(tmp_path: Path) -> None:
    toy.build(tmp_path)
    truncate(toy.artifact(tmp_path, "learn") / "value.json")
    with pytest.raises(RuntimeError):
        toy.build(tmp_path, toy.toy_plan(tmp_path, target="learn"), fail_after=("learn", 4))
    store = toy.toy_store(tmp_path)
    assert [record["stage"] for record in store.records("gather")] == ["gather"]
    assert list(store.records("learn")) == list(store.records("unheard_of")) == []


# ------------------------------------------------------------------------------------------------- failures and kills


def test_a_build_that_raises_leaves_no_artifact_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    whole, _ = toy.build(tmp_path / "whole")
    root = tmp_path / "failed"
    with pytest.raises(RuntimeError, match="learn failed after step 5"):
        toy.build(root, fail_after=("learn", 5))
    assert not toy.artifact(root, "learn").exists() and not toy.artifact(root, "judge").exists()
    assert json.loads((toy.workplace(root, "learn").checkpoints / "state.json").read_text())["step"] == 3
    records, listener = toy.build(root)
    assert toy.diary(root, "learn ")[6:] == ["learn began", *(f"learn {step}" for step in range(4, 11))]
    assert listener.events[0] == "reused gather"
    assert results(records) == results(whole)


def test_a_killed_build_leaves_no_artifact_and_the_next_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    whole, _ = toy.build(tmp_path / "whole")
    root = tmp_path / "killed"
    toy.build_and_die(root, "learn", 8)
    assert not toy.artifact(root, "learn").exists()
    assert [file.name for file in toy.workplace(root, "learn").checkpoints.iterdir()] == ["state.json"]
    records, listener = toy.build(root)
    lost_and_left = [f"learn {step}" for step in (7, 8, 9, 10)]  # the checkpoint is of step 6
    assert toy.diary(root, "learn ")[9:] == ["learn began", *lost_and_left]
    assert results(records) == results(whole)
    assert history_steps(toy.artifact(root, "learn")) == list(range(1, 11))
    assert [row["step"] for row in listener.rows["learn"]] == list(range(1, 11)), "the listener hears the whole history"
    assert not toy.workplace(root, "learn").checkpoints.exists()


def test_a_build_killed_twice_still_ends_the_same(tmp_path: Path) -> None:
    whole, _ = toy.build(tmp_path / "whole")
    root = tmp_path / "killed"
    toy.build_and_die(root, "learn", 4)
    toy.build_and_die(root, "learn", 7)
    assert toy.build(root)[0]["learn"]["files"] == whole["learn"]["files"]
    assert toy.diary(root, "learn ") == [
        *("learn began", "learn 1", "learn 2", "learn 3", "learn 4"),
        *("learn began", "learn 4", "learn 5", "learn 6", "learn 7"),
        *("learn began", "learn 7", "learn 8", "learn 9", "learn 10"),
    ]


def test_a_build_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    whole, _ = toy.build(tmp_path / "whole")
    root = tmp_path / "killed"
    toy.build_and_die(root, "gather", 2)
    records, listener = toy.build(root)
    assert records["gather"]["files"] == whole["gather"]["files"]
    assert (
        history_steps(toy.artifact(root, "gather")) == [row["step"] for row in listener.rows["gather"]] == [1, 2, 3, 4]
    )


def test_the_remains_of_a_killed_build_are_not_in_the_next_artifact(tmp_path: Path) -> None:
    build_folder = toy.workplace(tmp_path, "gather")
    (build_folder.artifact / "parts").mkdir(parents=True)
    (build_folder.artifact / "half_written").touch()
    toy.build(tmp_path)
    assert set(contents(toy.artifact(tmp_path, "gather"))) == {"parts/numbers.json", "history.jsonl", "record.json"}


def test_two_processes_that_want_the_same_build_it_once(tmp_path: Path) -> None:
    builders = [toy.build_elsewhere(tmp_path, wait_for_company=True) for _ in range(2)]
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert "gather: another process is building it; waiting" in toy.diary(tmp_path)
    begun = [line for line in toy.diary(tmp_path) if line.endswith("began")]
    assert begun == ["gather began", "learn began", "judge began"]


def test_a_lock_left_by_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    toy.build_and_die(tmp_path, "gather", 1)
    toy.build(tmp_path)
    assert not [line for line in toy.diary(tmp_path) if "waiting" in line]


def test_what_another_process_built_meanwhile_is_reported_as_reused(tmp_path: Path) -> None:
    """Between looking what is missing and building it."""
    plan, store, listener = toy.toy_plan(tmp_path), toy.toy_store(tmp_path), toy.RecordingListener()
    find, looks = store.find, []

    def find_nothing_at_first(stage: Stage) -> Record | None:
        looks.append(stage.role)
        return None if looks.count(stage.role) == 1 else find(stage)

    toy.build(tmp_path)
    store.find = find_nothing_at_first  # type: ignore[method-assign]
    run(plan, store, toy.Runtime(tmp_path / "diary"), listener)
    assert listener.events == ["reused gather", "reused learn", "reused judge"]
