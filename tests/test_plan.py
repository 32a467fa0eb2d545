"""A method's graph becomes the stages of a run: those it needs, inputs first, each named by what it computes."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

import toy
from prefsweep.errors import UserError

BRANCHED = {
    "gather": {},
    "learn": {"numbers": "gather"},
    "base": "prior",
    "prior": {"when": "false"},
    "judge/start": {"model": "base"},
    "judge/end": {"model": "learn"},
    "judge": {"start": "judge/start", "end": "judge/end"},
}


def roles(root: Path, **parts: Any) -> list[str]:
    return [stage.role for stage in toy.toy_plan(root, **parts).stages]


def identities(root: Path, changes: dict[str, Any] | None = None, **parts: Any) -> dict[str, str]:
    return {stage.role: stage.identity for stage in toy.toy_plan(root, changes, **parts).stages}


def complaint(root: Path, **parts: Any) -> str:
    with pytest.raises(UserError) as caught:
        toy.toy_plan(root, **parts)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_inputs_stand_before_those_who_read_them_and_the_target_last(tmp_path: Path) -> None:
    dice = random.Random(0)
    for _ in range(50):
        names = [f"judge/{index}" for index in range(8)]
        graph = {
            name: {f"input{source}": names[source] for source in range(index) if dice.random() < 0.4}
            for index, name in enumerate(names)
        }
        scrambled = dict(dice.sample(sorted(graph.items()), len(graph)))
        plan = toy.toy_plan(tmp_path, graph=scrambled, target=names[-1])
        assert plan.target.role == names[-1] == plan.stages[-1].role
        done: set[str] = set()
        for stage in plan.stages:
            assert {source.role for source in stage.inputs.values()} == set(graph[stage.role].values()) <= done
            done.add(stage.role)
            assert {id(source) for source in stage.inputs.values()} <= {id(other) for other in plan.stages}
        assert len(done) == len(plan.stages)


def test_what_the_target_does_not_need_is_pruned_before_it_can_complain(tmp_path: Path) -> None:
    useless = {"unheard_of": {}, "judge/loop": {"model": "judge/loop"}, "judge/lost": {"model": "nowhere"}}
    assert roles(tmp_path, graph={**toy.GRAPH, **useless}) == ["gather", "learn", "judge"]
    assert roles(tmp_path, target="learn") == ["gather", "learn"]
    assert identities(tmp_path, graph={**toy.GRAPH, **useless}) == identities(tmp_path)


def test_a_string_is_another_name_for_a_role(tmp_path: Path) -> None:
    graph = {**toy.GRAPH, "base": "start", "start": "gather", "learn": {"numbers": "base"}}
    assert identities(tmp_path, graph=graph) == identities(tmp_path)


def test_a_role_whose_condition_does_not_hold_is_no_input(tmp_path: Path) -> None:
    plan = toy.toy_plan(tmp_path, graph=BRANCHED)
    inputs = {stage.role: list(stage.inputs) for stage in plan.stages}
    assert inputs == {
        "judge/start": [],
        "gather": [],
        "learn": ["numbers"],
        "judge/end": ["model"],
        "judge": ["start", "end"],
    }


def test_the_names_it_uses_are_those_of_its_stages(tmp_path: Path) -> None:
    assert toy.toy_plan(tmp_path, graph=BRANCHED).used == {"gather", "learn", "judge"}
    assert toy.toy_plan(tmp_path, target="gather").used == {"gather"}


def test_a_stage_that_would_need_itself_is_a_complaint(tmp_path: Path) -> None:
    circle = {**toy.GRAPH, "gather": {"judgement": "judge"}}
    assert "judge would need itself (judge ← learn ← gather ← judge)" in complaint(tmp_path, graph=circle)
    own = {**toy.GRAPH, "base": "learn", "learn": {"numbers": "base"}}
    assert "learn would need itself" in complaint(tmp_path, graph=own)
    names = {**toy.GRAPH, "base": "start", "start": "base", "learn": {"numbers": "base"}}
    assert "is another name for itself (base → start → base)" in complaint(tmp_path, graph=names)


@pytest.mark.parametrize(
    ("parts", "where", "near"),
    [
        ({"target": "jugde"}, "method.pipeline.jugde: no stage jugde", "judge"),
        ({"graph": {**toy.GRAPH, "learn": {"numbers": "gahter"}}}, "method.pipeline.learn.numbers: ", "gather"),
        ({"graph": {**toy.GRAPH, "base": "gather", "learn": {"numbers": "bsae"}}}, "no stage bsae", "base"),
    ],
    ids=["target", "input", "name"],
)
def test_an_unknown_name_is_a_complaint_with_the_nearest_known_one(
    tmp_path: Path, parts: dict[str, Any], where: str, near: str
) -> None:
    line = complaint(tmp_path, **parts)
    assert where in line and f"(nearest: {near})" in line


def test_a_condition_that_holds_keeps_a_role(tmp_path: Path) -> None:
    graph = {**toy.GRAPH, "gather": {"when": "true"}}
    assert identities(tmp_path, graph=graph) == identities(tmp_path)


def test_one_computation_in_two_roles_has_one_identity(tmp_path: Path) -> None:
    same = identities(tmp_path, graph={**BRANCHED, "base": "learn"})
    other = identities(tmp_path, graph=BRANCHED)
    assert same["judge/start"] == same["judge/end"]
    assert other["judge/start"] != other["judge/end"] == same["judge/end"]


def test_the_name_of_an_input_counts(tmp_path: Path) -> None:
    graph = {**toy.GRAPH, "judge": {"policy": "learn"}}
    assert identities(tmp_path, graph=graph)["judge"] != identities(tmp_path)["judge"]


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"world.scale": 2}, {"gather", "learn", "judge"}),
        ({"gather.size": 5}, {"gather", "learn", "judge"}),
        ({"gather.code_version": 2}, {"gather", "learn", "judge"}),
        ({"learn.rate": 0.5}, {"learn", "judge"}),
        ({"learn._target_": "toy.gather"}, {"learn", "judge"}),
        ({"judge.code_version": 2}, {"judge"}),
        ({"learn.nickname": "second", "world.name": "away"}, set()),
    ],
    ids=lambda value: " ".join(sorted(value)) or "nothing",  # a set has no order of its own
)
def test_a_changed_value_changes_what_reads_it_and_all_behind_and_nothing_else(
    tmp_path: Path, changes: dict[str, Any], changed: set[str]
) -> None:
    before, after = identities(tmp_path), identities(tmp_path, changes)
    assert {role for role in before if before[role] != after[role]} == changed
    plans = toy.toy_plan(tmp_path), toy.toy_plan(tmp_path, changes)
    assert (plans[0].identity != plans[1].identity) == bool(changed)


def test_where_and_how_it_runs_reaches_no_payload(tmp_path: Path) -> None:
    first, _ = toy.build(tmp_path / "here")
    second, _ = toy.build(tmp_path / "there", wait_for_company=False, fail_after=("learn", 99))
    reproducible = ("stage", "config", "sections", "inputs", "identity", "files", "metrics")
    for role, record in first.items():
        assert {key: record[key] for key in reproducible} == {key: second[role][key] for key in reproducible}
        assert str(tmp_path) not in json.dumps(record) and "fail_after" not in json.dumps(record)
