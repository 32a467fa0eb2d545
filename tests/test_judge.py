"""A judge that is trained in the run: on other questions than the reward, in no identity of what is trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from architectures import save_classifier
from prefsweep.data.sources import load
from prefsweep.data.splits import of_share
from prefsweep.errors import UserError
from prefsweep.jobs.job import prepare, sections_of
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.files import read_jsonl, write_jsonl
from prefsweep.pipeline.stage import Context
from prefsweep.stages import judging, reward_model
from prefsweep.stages.generate import SAMPLES

TRAINED = ("scorer@judge=trained", "dataset.share=[0,0.5]")


@pytest.fixture
def config(composed: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    encoder = save_classifier("bert", ("LABEL_0",), tmp_path / "encoder")
    short = ("batch_size=8", "max_steps=4", "warmup_steps=0", "max_length=96", f"encoder.path={encoder}")
    return lambda *words: composed(*TRAINED, *(f"stages.judge_model.{word}" for word in short), *words)


def run(made: Any, folder: Path, context: Context) -> dict[str, Any]:
    folder.mkdir()
    sections = sections_of(made, "judge_model", made.stages.judge_model)
    return reward_model.run(made.stages.judge_model, dataset=sections["dataset"], folder=folder, context=context)


def test_shares_hold_each_question_once(composed: Callable[..., Any]) -> None:
    examples = load(composed("dataset.size=400").dataset, "train")
    first, second = (of_share(examples, share, "world") for share in ([0.0, 0.5], [0.5, 1.0]))
    assert not {row.group for row in first} & {row.group for row in second}
    assert sorted(row.id for row in [*first, *second]) == sorted(row.id for row in examples)
    assert 0.35 < len(first) / len(examples) < 0.65
    fewer = of_share(load(composed("dataset.size=100").dataset, "train"), [0.0, 0.5], "world")
    assert {row.id for row in fewer} <= {row.id for row in first}
    with pytest.raises(UserError, match=r"^dataset=world: none of its 400 .* share=\[0\.5, 0\.5001\]"):
        of_share(examples, [0.5, 0.5001], "world")


def test_a_trained_judge_learns_its_share_alone(config: Any, new_context: Any, tmp_path: Path) -> None:
    made = config("stages.judge_model.batch_size=1", "stages.judge_model.max_steps=null")
    rows = load(replace(made.dataset, share=[0.5, 1.0]), "train")
    assert run(made, tmp_path / "trained", new_context())["steps"] == len(rows) < 48


def test_a_killed_scoring_goes_on_from_where_it_was(new_context: Any, monkeypatch: Any) -> None:
    class Counting:
        def __init__(self) -> None:
            self.read: list[str] = []

        def score(self, prompts: list[str], completions: list[str], ended: Any = None) -> dict[str, list[float]]:
            if len(self.read) >= 4 and not self.read.count("whole"):
                raise KeyboardInterrupt
            self.read += completions
            return {
                "score": [float(len(completion)) for completion in completions],
                "truncated": [0.0] * len(completions),
            }

    monkeypatch.setattr(judging, "PART", 2)
    completions = ["a" * number for number in range(7)]
    scorer = Counting()
    with pytest.raises(KeyboardInterrupt):
        judging.measures(scorer, [""] * 7, completions, [True] * 7, "completions", new_context())
    scorer.read.append("whole")
    scores = judging.measures(scorer, [""] * 7, completions, [True] * 7, "completions", new_context())
    assert scores == {"score": [float(number) for number in range(7)], "truncated": [0.0] * 7}
    assert scorer.read == [*completions[:4], "whole", *completions[4:]]


def test_the_answers_are_scored_by_the_judge_of_the_run(config: Any, new_context: Any, tmp_path: Path) -> None:
    made = config()
    run(made, tmp_path / "trained", new_context())
    rows = [{"prompt": "The plot", "completion": f" was {word}.", "ended": True} for word in ("witty", "dull")]
    write_jsonl(tmp_path / SAMPLES, rows)
    (tmp_path / "scored").mkdir()
    given = {"completions": tmp_path, "judge_model": tmp_path / "trained"}
    judging.judge_completions(
        made.stages.judge_completions,
        judge=made.judge,
        folder=tmp_path / "scored",
        context=new_context("scoring"),
        **given,
    )
    scores = [row["scores"]["score"] for row in list(read_jsonl(tmp_path / "scored" / SAMPLES))]
    scorer = load_scorer(made.judge, torch.device("cpu"), tmp_path / "trained")
    assert scores == scorer.score(["The plot"] * 2, [" was witty.", " was dull."])["score"]


def identities(made: Any) -> dict[str, str]:
    return {stage.role: stage.identity for stage in prepare([], made).plan.stages}


def test_a_trained_judge_retrains_nothing(composed: Callable[..., Any]) -> None:
    given, trained = (identities(composed("method=ppo", *TRAINED[1:], *words)) for words in ([], TRAINED[:1]))
    assert "judge_model" in trained and "judge_model" not in given
    assert all(trained[role] == given[role] for role in ("pretrain", "reward_model", "ppo", "generate/result"))
    assert trained["judge_completions/result"] != given["judge_completions/result"]


def test_one_judge_for_every_seed_model_and_method(composed: Callable[..., Any], model_folders: Any) -> None:
    def judge_of(*words: str) -> str:
        return identities(composed(*TRAINED, *words))["judge_model"]

    model = ("model=gpt2", f"model.path={model_folders['opt']}")
    assert len({judge_of("method=ppo"), judge_of("method=dpo", "seed=7"), judge_of("method=base", *model)}) == 1
    policy = (
        "stages.judge_model.backbone=policy",
        "stages.judge_model.max_length=64",
    )
    assert judge_of(*policy) != judge_of("method=base", *model, *policy)


def test_a_judge_of_the_rewards_own_questions_is_refused(composed: Callable[..., Any]) -> None:
    overlapping = ("method=ppo", "scorer@judge=trained", "dataset.share=[0,0.6]")
    with pytest.raises(UserError, match=r"^dataset\.share=\[0\.0, 0\.6\].*: reward_model .*dataset\.share=\[0,0\.5\]"):
        identities(composed(*overlapping))
    assert "judge_model" in identities(composed(*overlapping, "method.allow_reward_as_judge=true"))
    assert "judge_model" in identities(composed("method=base", "scorer@judge=trained"))  # nothing learns but the judge
