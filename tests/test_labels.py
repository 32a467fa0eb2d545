"""Who learns which labels: policies and rewards one share of the questions, a judge that is trained another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hub_layout
from prefsweep.config.compose import compose, composing
from prefsweep.data.sources import load
from prefsweep.errors import UserError
from prefsweep.jobs import dataset_summary
from prefsweep.jobs.job import prepare, store_of
from workplace import Workplace

LEARNERS = {"sft", "reference_logps", "dpo", "kto", "reward_model", "ppo", "rloo", "grpo"}


@pytest.fixture
def plan_with(tmp_path: Path) -> Callable[..., Any]:
    """The plan of a job on a small CulturalKaleidoscope."""
    folder = hub_layout.write_dataset("CulturalKaleidoscope", tmp_path / "cultural", rows=96)

    def make(*words: str) -> Any:
        line = [*hub_layout.words("CulturalKaleidoscope", folder), f"runtime.outputs={tmp_path}", "model=gpt2", *words]
        with composing():
            return prepare([], compose(line))

    return make


def rows_of(stage: Any) -> list[Any]:
    return list(load(stage.sections["dataset"], "train"))


def test_the_judge_learns_other_questions_than_policies_and_rewards(plan_with: Callable[..., Any]) -> None:
    learned, judged = {}, []
    for method in ("sft+dpo", "kto", "sft+ppo", "rloo", "grpo"):
        for stage in plan_with(f"method={method}").plan.stages:
            if stage.name == "judge_model":
                judged.append(rows_of(stage))
            elif stage.name in LEARNERS:
                learned[stage.name] = rows_of(stage)
    assert learned.keys() == LEARNERS
    rows, own = learned["dpo"], judged[0]
    assert all(other == rows for other in learned.values()), "one budget of labels"
    assert all(other == own for other in judged)
    assert not {row.group for row in rows} & {row.group for row in own}
    everything = list(load(plan_with("dataset.share=null", "scorer@judge=deberta-v3").config.dataset, "train"))
    assert sorted(row.id for row in [*rows, *own]) == sorted(row.id for row in everything)
    assert 0.3 < len(rows) / len(everything) < 0.7


def test_another_judge_trains_no_policy_again(plan_with: Callable[..., Any]) -> None:
    def identities(*words: str) -> dict[str, str]:
        return {stage.role: stage.identity for stage in plan_with("method=sft+dpo", *words).plan.stages}

    trained, general, fewer = identities(), identities("scorer@judge=deberta-v3"), identities("dataset.share=[0,0.3]")
    judge = trained.pop("judge_model")
    assert fewer.pop("judge_model") == judge == identities("dataset.max_train_samples=4")["judge_model"]
    for role in ("sft", "reference_logps", "dpo", "generate/result"):
        assert trained[role] == general[role] != fewer[role]


@pytest.mark.parametrize("method", ["sft", "dpo", "ppo"])
def test_a_judge_of_questions_that_others_learn_is_refused(method: str, plan_with: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"^dataset\.share=\[0\.0, 0\.6\].* would learn .*dataset\.share=\[0,0\.5\]$"):
        plan_with(f"method={method}", "dataset.share=[0,0.6]")
    with pytest.raises(UserError, match=r"^dataset\.share=null, stages\.judge_model\.share=\[0\.5, 1\.0\]"):
        plan_with(f"method={method}", "dataset.share=null")
    plan_with(f"method={method}", "dataset.share=null", "scorer@judge=deberta-v3")  # which is not trained on any


def test_dpo_and_the_reward_of_ppo_learn_equally_many_labels(plan_with: Callable[..., Any], tmp_path: Path) -> None:
    workplace, words = Workplace(tmp_path), hub_layout.words("CulturalKaleidoscope", tmp_path / "cultural")
    small = ("debug=smoke", "runtime=cpu", "runtime.threads=1", "tracking=off", "stages.reward_model.max_steps=null")
    done = workplace.command("-m", *words, "method=dpo,ppo", "sweep=both", *small, "stages.dpo.max_steps=null")
    assert done.returncode == 0, done.stderr
    rows = next(len(rows_of(stage)) for stage in plan_with("method=dpo").plan.stages if stage.name == "dpo")
    assert {run["cost"]["method"]["labels"] for run in workplace.jobs("both").values()} == {rows}


def test_the_rows_of_both_shares_are_reported(plan_with: Callable[..., Any]) -> None:
    job = plan_with("method=dpo")
    first, second = dataset_summary.validate_datasets(job.plan.stages, store_of(job.config.runtime))
    rows = {stage.name: len(rows_of(stage)) for stage in job.plan.stages if stage.name in ("dpo", "judge_model")}
    assert first.startswith(f"CulturalKaleidoscope: train kept {rows['dpo']} of ") and "; test kept" in first
    assert second.startswith(f"CulturalKaleidoscope for judge_model: train kept {rows['judge_model']} of ")
    assert all("in another share" in line for line in (first, second))
