"""What is asked of policies that are there: more prompts, another judge, other prompts. Nothing is trained."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub_layout import words, write_dataset
from prefsweep.jobs.job import prepare, store_of
from prefsweep.pipeline.files import read_jsonl, write_jsonl
from prefsweep.stages import generate
from workplace import Workplace

BY_ANOTHER = ("scorer@judge=deberta-v3",)


def test_more_prompts_or_answers_cost_the_new_ones_alone(
    composed: Callable[..., Any], new_context: Callable[..., Any], model_folders: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """And the rows are those of a stage that was asked for all of them at once."""
    config = composed("model=gpt2", f"model.path={model_folders['gpt2']}", "stages.generate.max_new_tokens=8")
    requested, drawn = list[int](), dict[str, int]()
    real = generate.sample_completions

    def counting(config: Any, generator: Any, tokenizer: Any, rows: Any, runtime: Any) -> Any:
        requested.append(len(rows))
        return real(config, generator, tokenizer, rows, runtime)

    monkeypatch.setattr(generate, "sample_completions", counting)

    def run(name: str, prompts: int, completions: int, *find_similar: str) -> list[dict[str, Any]]:
        context = replace(new_context(name), find_similar=lambda *fields: [tmp_path / other for other in find_similar])
        (tmp_path / name).mkdir(exist_ok=True)
        stage = replace(config.stages.generate, prompts=prompts, completions_per_prompt=completions)
        generate.run(stage, model=config.model, dataset=config.dataset, folder=tmp_path / name, context=context)
        drawn[name] = context.cost.counts["tokens_generated"]
        return list(read_jsonl(tmp_path / name / "completions.jsonl"))

    few = run("few", 4, 1)
    more = run("more", 6, 2, "few")
    assert requested == [4, 8]
    assert more == run("whole", 6, 2)
    assert [row for row in more if row in few] == few
    assert run("fewer", 2, 1, "more", "few") == few[:2] and requested == [4, 8, 12]  # nothing left to ask
    tokens = {name: sum(len(row["completion_tokens"]) for row in rows) for name, rows in (("few", few), ("more", more))}
    assert drawn == {**tokens, "more": tokens["more"] - tokens["few"], "whole": tokens["more"], "fewer": 0}
    checkpoint = new_context("killed").checkpoints / "completions.jsonl"
    write_jsonl(checkpoint, more[:5])
    assert run("killed", 6, 2) == more and requested[3:] == [7]
    assert drawn["killed"] == drawn["whole"]  # what the first attempt drew is this stage's own


def test_only_stages_that_differ_in_nothing_else_lend_their_answers(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    assert workplace.run("method=base", "tracking=off").returncode == 0
    from prefsweep.config.compose import compose, composing
    from workplace import SMALL

    def find_similar(*more: str) -> list[Path]:
        with composing():
            job = prepare([], compose([*SMALL, "method=base", f"runtime.outputs={tmp_path / 'outputs'}", *more]))
        stage = next(stage for stage in job.plan.stages if stage.role == "generate/result")
        return list(store_of(job.config.runtime).find_similar(stage, "prompts", "completions_per_prompt"))

    (built,) = workplace.stages("generate")
    assert find_similar("stages.generate.prompts=12") == find_similar() == [built]
    assert find_similar("stages.generate.prompts=12", "stages.generate.seed=1") == []
    assert find_similar("stages.generate.prompts=12", "dataset.seed=1") == []
    (built / "completions.jsonl").write_text("")
    assert find_similar("stages.generate.prompts=12") == []  # damaged: nobody's answers


@pytest.mark.slow
def test_a_sweep_is_judged_again_and_nothing_is_trained(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    half = "dataset.share=[0,0.5]"  # the rest is the later judge's
    assert workplace.run("-m", "method=base,dpo", "sweep=first", "tracking=off", half).returncode == 0
    trained = {name: workplace.stages(name) for name in ("pretrain", "dpo", "generate")}

    done = workplace.command("rescore", "multirun_sweeps/first", "scorer@judge=trained")
    assert done.returncode == 0, done.stderr
    assert {name: workplace.stages(name) for name in trained} == trained
    again, first = workplace.jobs("first-by-trained"), workplace.jobs("first")
    assert again.keys() == first.keys()
    for name, run in again.items():
        assert run["config"]["judge"]["name"] == "trained" and run["status"] == "finished"
        assert run["metrics"]["judge/mean"] != first[name]["metrics"]["judge/mean"]
        assert run["metrics"]["text/length"] == first[name]["metrics"]["text/length"]
    assert (tmp_path / "multirun_sweeps/first-by-trained/table.md").is_file()
    one, other = (list(read_jsonl(folder / "validation.jsonl")) for folder in workplace.stages("judge_validation"))
    assert [row["completion"] for row in one] == [
        row["completion"] for row in other
    ]  # of dpo, by the one judge and the other
    assert [row["judge"] for row in one] != [row["judge"] for row in other]

    done = workplace.command("rescore", "multirun_sweeps/first", "stages.generate.prompts=12")
    assert done.returncode == 0, done.stderr
    assert {name: workplace.stages(name) for name in ("pretrain", "dpo")} == {
        k: trained[k] for k in ("pretrain", "dpo")
    }
    (tmp_path / "outputs/stages/dpo" / trained["dpo"][0].name / "model.safetensors").write_text("")
    for arguments, message in (
        (["multirun_sweeps/first", "scorer@judge=trained", "judge.code_version=99"], "dpo would be built again"),
        (["multirun_sweeps/first", "stages.dpo.beta=0.3"], "dpo would be built again"),
        (["multirun_sweeps/first", "scorer@judge=trained", "dataset.share=null"], "set dataset.share=[0,0.5]"),
        (["multirun_sweeps/first"], "rescore: needs key=value"),
        (["nowhere", "scorer@judge=trained"], "no such folder"),
    ):
        done = workplace.command("rescore", *arguments)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_policy_is_judged_on_other_datasets_prompts_too(tmp_path: Path) -> None:
    """The evaluating half of the graph once more; what the run says of its own prompts is what it says without."""
    workplace = Workplace(tmp_path)
    own, other = (write_dataset(name, tmp_path / name) for name in ("hh-rlhf", "imdb"))
    line = ["model=gpt2", *words("hh-rlhf", own), "method=dpo", "debug=smoke", "runtime=cpu", "tracking=off"]
    more = [
        "evaluate_on=[imdb]",
        f"other_datasets.imdb.path={other}",
        "other_datasets.imdb.validation=8",
    ]
    assert workplace.command(*line).returncode == 0
    alone = workplace.single()
    (tmp_path / "outputs/runs" / alone["name"]).rename(tmp_path / "before")
    trained = workplace.stages("dpo")
    done = workplace.command(*line, *more)
    assert done.returncode == 0, done.stderr
    run = workplace.single()
    assert workplace.stages("dpo") == trained
    assert {name: value for name, value in run["metrics"].items() if "@" not in name} == alone["metrics"]
    assert {"judge/mean@imdb", "judge/win_rate@imdb", "kl/base@imdb", "text/length@imdb"} <= run["metrics"].keys()
    assert not any(
        name.startswith("preference/") and "@" in name for name in run["metrics"]
    )  # imdb has no pairs of completions
    rows = list(read_jsonl(tmp_path / "outputs/stages/evaluate" / run["stages"]["evaluate/imdb"] / "completions.jsonl"))
    mean = sum(row["values"]["judge/mean"] for row in rows) / len(rows)
    assert run["metrics"]["judge/mean@imdb"] == pytest.approx(mean)
    assert json.loads(json.dumps(run["config"]["other_datasets"]))["imdb"]["path"] == str(other)
    done = workplace.command(*line, *more, "runtime.dry_run=true")
    assert re.search(r"^imdb: test kept 16", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluate_on=[imbd]"], "no such dataset (nearest: imdb)"),
        (["evaluate_on=[synthetic-reviews]"], "is the run's own dataset"),
        (["other_datasets.imdb.path=x"], "set evaluate_on=[NAME] too"),
        (["evaluate_on=[imdb]"], "knows the synthetic world alone"),
        (
            ["evaluate_on=[imdb]", *BY_ANOTHER, "other_datasets.imdb.path=nowhere"],
            "other_datasets.imdb.path=nowhere: no such file",
        ),
        (
            ["evaluate_on=[imdb]", *BY_ANOTHER, "other_datasets.imdb.pth=x"],
            "other_datasets.imdb.pth: no such key (nearest: ",
        ),
        (
            ["stages.generate.temperature=0", "stages.generate.completions_per_prompt=2"],
            "set stages.generate.completions_per_prompt=1",
        ),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    done = Workplace(tmp_path).command(*overrides, "runtime.dry_run=true")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
