"""The course of a training: every kept state judged like the result, resumed state by state; its table and figure."""

import csv
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from prefsweep.config.graph import holds
from prefsweep.errors import UserError
from prefsweep.jobs.job import plan_of
from prefsweep.pipeline.files import read_jsonl, write_json, write_jsonl
from prefsweep.report import report
from prefsweep.report.course import course_table
from prefsweep.report.figures import draw_course
from prefsweep.report.runs import read_runs
from prefsweep.report.statistics import crossed
from prefsweep.report.table import table
from prefsweep.stages import course, generate, judging
from recorded import INPUTS, write_run
from workplace import Workplace

COMMON = ("judge/mean", "kl/base", "kl/start", "text/length", "text/ended")


def rows_of(workplace: Workplace, run: dict[str, Any]) -> list[dict[str, Any]]:
    folder = workplace.folder / "outputs/stages/judge_course" / run["stages"]["judge_course"]
    return list(read_jsonl(folder / "course.jsonl"))


def check_last_state(workplace: Workplace, run: dict[str, Any]) -> None:
    """On the prompts of the course, the last state has the numbers that evaluate has of the result."""
    evaluated = read_jsonl(
        workplace.folder / "outputs/stages/evaluate" / run["stages"]["evaluate"] / "completions.jsonl"
    )
    values = [row["values"] for row in list(evaluated)[:6] if row["sample"] == 0]
    last = rows_of(workplace, run)[-1]
    assert sum(last["by_group"]["sizes"]) == len(values) == 6
    for name in COMMON:
        assert last[name] == pytest.approx(fmean(value[name] for value in values), rel=1e-4, abs=1e-6), name
    assert last["kl/start"] > 0


@pytest.mark.slow
def test_the_states_of_a_training_are_judged_like_its_result(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    words: tuple[str, ...] = ("stages.dpo.save_every=3", "stages.dpo.learning_rate=1e-2", "stages.ppo.save_every=1")
    words += ("tracking=off", "dataset.share=[0,0.5]")  # the judge of the second rescoring learns the others
    sweep = ("-m", "method=base,dpo,sft+ppo", "sweep=states", *words)
    assert workplace.run(*sweep).returncode == 0
    assert workplace.stages("judge_course") == []
    trained = {name: workplace.stages(name) for name in ("pretrain", "sft", "dpo", "ppo", "generate")}

    # a setting that comes later trains nothing, nor does another judge complete anything again
    later = ("stages.evaluate.course=true", "stages.course_samples.prompts=6")
    assert workplace.command("rescore", "multirun_sweeps/states", *later).returncode == 0
    assert {name: workplace.stages(name) for name in trained} == trained
    samples = workplace.stages("course_samples")
    runs = workplace.jobs("states-again")
    assert "judge_course" not in runs["base/1"]["stages"]
    assert [row["step"] for row in rows_of(workplace, runs["dpo/1"])] == [0, 3, 4]  # of 4 steps
    assert [row["step"] for row in rows_of(workplace, runs["sft+ppo/1"])] == [0, 1, 2]

    another = ("scorer@judge=trained", "sweep=other")
    assert workplace.command("rescore", "multirun_sweeps/states-again", *another).returncode == 0
    assert {name: workplace.stages(name) for name in trained} == trained and workplace.stages(
        "course_samples"
    ) == samples
    for name in ("dpo/1", "sft+ppo/1"):
        run = workplace.jobs("other")[name]
        first, *_, last = rows_of(workplace, run)
        assert first["kl/start"] == 0 and first["judge/mean"] != last["judge/mean"]
        assert (first["kl/base"] > 0) == (name == "sft+ppo/1")
        check_last_state(workplace, run)
    folder = tmp_path / "multirun_sweeps/other"
    assert (folder / "course.png").stat().st_size > 10_000 and 'alt="course"' in (folder / "report.html").read_text()
    assert len((folder / "course.md").read_text().split("\n\n")[0].splitlines()) == 2 + 6


@pytest.fixture
def trained(model_folders: dict[str, Path], tokenizer: Any, tmp_path: Path) -> Path:
    """The folder of a training of four steps that kept the states of 1 and 2: ever farther from the base."""
    folder = tmp_path / "trained"
    model = AutoModelForCausalLM.from_pretrained(model_folders["gpt2"])
    for part in ("steps/1", "steps/2", ""):
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        model.save_pretrained(folder / part)
        tokenizer.save_pretrained(folder / part)
    write_json(folder / "record.json", {"metrics": {"steps": 4, "step": 4}})
    return folder


def test_a_killed_build_goes_on_with_the_state_it_was_at(
    trained: Path, composed: Any, new_context: Any, model_folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("stages.course_samples.prompts=5", "stages.generate.max_new_tokens=8")
    config = composed("model=gpt2", f"model.path={model_folders['gpt2']}", *words)
    requests = list[int]()
    real = generate.sample_completions

    def counting(config: Any, generator: Any, codec: Any, rows: Any, runtime: Any) -> Any:
        requests.append(len(rows))
        return real(config, generator, codec, rows, runtime)

    monkeypatch.setattr(generate, "sample_completions", counting)

    def build(name: str) -> tuple[str, Any]:
        context, folder = new_context(name), tmp_path / f"{name}-artifact"
        folder.mkdir(exist_ok=True)
        sections = {"model": config.model, "dataset": config.dataset}
        metrics = course.generate_states(
            config.stages.course_samples, **sections, folder=folder, context=context, trained=trained
        )
        assert (metrics["states"], metrics["samples"]) == (4, 20)
        return (folder / "completions.jsonl").read_text(), context

    whole, context = build("whole")
    assert requests == [5] * 4
    rows = [json.loads(line) for line in whole.splitlines()]
    assert all(set(judging.SCORED) <= row.keys() for row in rows)  # or the judge could not read them
    assert [row["step"] for row in rows[::5]] == [0, 1, 2, 4]
    kls = [fmean(row["values"]["kl/start"] for row in rows[first : first + 5]) for first in (0, 5, 10, 15)]
    assert kls[0] == 0 and kls == sorted(kls) and kls[1] > 0.01

    # two states are done, the third is half written, and of its completions two are there
    before, checkpoints = context.checkpoints, new_context("killed").checkpoints
    lines = (before / "states.jsonl").read_text().splitlines(keepends=True)
    (checkpoints / "states.jsonl").write_text("".join(lines[:2]) + lines[2][:40])
    write_jsonl(checkpoints / "state-2.jsonl", list(read_jsonl(before / "state-2.jsonl"))[:2])
    requests.clear()
    resumed, resumed_context = build("killed")
    assert resumed == whole and requests == [3, 5]
    assert resumed_context.cost.counts == context.cost.counts
    assert context.cost.counts["tokens_generated"] > 0 and context.cost.counts["flops"] > 0


@pytest.mark.parametrize(
    ("metrics", "result"),
    [
        ({"steps": 9, "step": 9}, 9),
        ({"steps": 9, "step": 3}, 3),  # the best validation's, which is no kept state
        ({"iterations": 5, "step": 4, "diverged": "ppo: a loss was not finite"}, 5),
        ({"iterations": 5, "diverged": "ppo: a loss was not finite"}, 5),
        ({"iterations": 0, "diverged": "ppo: a loss was not finite"}, 0),
    ],
)
def test_the_result_is_a_state_at_its_own_step(metrics: dict[str, Any], result: int, tmp_path: Path) -> None:
    for step in (2, 4, 10):
        (tmp_path / f"steps/{step}").mkdir(parents=True)
    write_json(tmp_path / "record.json", {"metrics": metrics})
    saved = {step: tmp_path / f"steps/{step}" for step in (2, 4, 10)}
    expected = {0: None} | {result: tmp_path} | saved
    assert course.states(tmp_path) == expected and list(course.states(tmp_path)) == sorted(expected)


def test_only_the_judging_of_a_run_knows_of_its_course(composed: Any) -> None:
    def identities(*words: str) -> dict[str, str]:
        plan = plan_of(composed("method=sft+dpo", "stages.dpo.save_every=2", *words))
        assert "course" not in plan.target.payload["config"]  # an input alone: runs without it are what they were
        return {stage.role: stage.identity for stage in plan.stages}

    without, with_course = identities(), identities("stages.evaluate.course=true")
    assert set(with_course) - set(without) == {"course_samples", "judge_course"}
    assert {role for role in without if without[role] != with_course[role]} == {"evaluate"}


def test_a_course_without_kept_states_is_refused_in_one_line(composed: Any) -> None:
    with pytest.raises(UserError, match=r"^stages\.evaluate\.course=true: .*; set stages\.dpo\.save_every=N$"):
        composed("method=sft+dpo", "stages.evaluate.course=true")
    assert "judge_course" not in composed("method=base", "stages.evaluate.course=true").stages  # trains nothing


def test_a_condition_of_two_parts_holds_where_both_do(composed: Any) -> None:
    config = composed("method=dpo", "stages.dpo.save_every=2")
    assert holds(config, "x", "stages.dpo.save_every=2 and judge.name=oracle and stages.dpo.beta")
    assert not holds(config, "x", "stages.dpo.save_every=2 and stages.evaluate.course")
    assert not holds(config, "x", "stages.evaluate.course and stages.dpo.save_every=2")


# ---------------------------------------------------------------------------------------------------------- the report


def write_course(sweep: Path, method: str, seed: int, scores: dict[int, list[float]], **changes: Any) -> None:
    """A run whose states have these scores of three prompts in two groups, and the KL of their step."""
    identity = f"{method}{seed}"
    stages = {"judge_course": identity}
    inputs = INPUTS | {"course": "judge_course"}
    metrics = {"judge/mean": fmean(list(scores.values())[-1]), "kl/base": 1.0}
    outputs = str(sweep / "outputs")
    write_run(sweep, method, seed, metrics, stages=stages, inputs=inputs, **{"runtime.outputs": outputs}, **changes)
    folder = sweep / "outputs/stages/judge_course" / identity
    folder.mkdir(parents=True)
    rows = [
        {"step": step, "group": group, "values": {"judge/mean": score, "kl/base": step / 10, "text/length": 7.0}}
        for step, of_step in scores.items()
        for group, score in zip(("a", "b", "b"), of_step, strict=True)
    ]
    summaries = [course.summary(step, [row for row in rows if row["step"] == step]) for step in scores]
    write_jsonl(folder / "course.jsonl", summaries)


def test_a_row_a_state_has_the_interval_over_seeds_and_prompts(tmp_path: Path) -> None:
    by_seed = {1: [0.1, 0.2, 0.6], 2: [0.3, 0.1, 0.9]}
    for seed, scores in by_seed.items():
        write_course(tmp_path, "dpo", seed, {0: [0.0, 0.0, 0.0], 10: scores})
    write_course(tmp_path, "ppo", 1, {0: [0.0, 0.0, 0.0], 4: [0.5, 0.5, 0.8], 8: [0.4, 0.3, 0.2]})
    write_run(tmp_path, "base", 1, {"judge/mean": 0.0, "kl/base": 0.0})  # without a course
    written = report(tmp_path, Console(file=(tmp_path / "printed").open("w")))
    assert {"course.md", "course.csv", "course.png", "course.pdf"} <= {path.name for path in written}
    with (tmp_path / "course.csv").open() as file:
        cells = {(row["method"], int(row["step"]), row["metric"]): row for row in csv.DictReader(file)}
    assert {key[:2] for key in cells} == {("dpo", 0), ("dpo", 10), ("ppo", 0), ("ppo", 4), ("ppo", 8)}
    cell = cells["dpo", 10, "judge/mean"]
    means = np.array([[scores[0], fmean(scores[1:])] for scores in by_seed.values()])
    estimate = crossed(means, np.array([1.0, 2.0]))
    assert estimate is not None
    low, high = estimate.around(fmean(map(fmean, by_seed.values())))
    assert [float(cell[name]) for name in ("mean", "low_95", "high_95")] == pytest.approx([estimate.mean, low, high])
    assert (cell["n"], cell["seeds"], cell["interval_over"]) == ("2", "1;2", "seeds and prompts")
    assert float(cells["ppo", 8, "kl/base"]["mean"]) == pytest.approx(0.8)
    assert "3 completions a state" in (tmp_path / "course.md").read_text()


def test_the_figure_has_a_line_a_row_over_kl_and_over_the_steps_of_each_training(tmp_path: Path) -> None:
    write_course(tmp_path, "dpo", 1, {0: [0.0, 0.0, 0.0], 10: [0.4, 0.5, 0.6], 20: [0.2, 0.1, 0.3]})
    write_course(tmp_path, "ppo", 1, {0: [0.0, 0.0, 0.0], 4: [0.5, 0.5, 0.8]})
    results = table(read_runs([tmp_path]), ["judge/mean"])
    courses = course_table(results)
    assert courses is not None
    figure = draw_course(results, courses)
    assert figure is not None
    by_kl, *by_step = figure.axes
    (dpo, ppo) = by_kl.lines
    assert dpo.get_xydata().ravel().tolist() == pytest.approx([0, 0, 1, 0.5, 2, 0.2])
    assert ppo.get_xydata().ravel().tolist() == pytest.approx([0, 0, 0.4, 0.6])
    assert [axes.get_title(loc="left") for axes in by_step if axes.lines] == ["Course of dpo", "Course of ppo"]
    assert np.asarray(by_step[0].lines[0].get_xydata())[:, 0].tolist() == [0, 10, 20]
    (tmp_path / "none").mkdir()
    write_run(tmp_path / "none", "dpo", 1, {"judge/mean": 0.5})
    assert course_table(table(read_runs([tmp_path / "none"]), ["judge/mean"])) is None
