"""Pairs from a policy's answers: which are made, what counts as a label, and who has no say in them."""

import math
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from architectures import save_classifier
from killing import die_at_call
from prefsweep.config.compose import compose, composing
from prefsweep.config.schema import Config
from prefsweep.jobs.job import plan_of, prepare
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.files import read_jsonl
from prefsweep.pipeline.stage import Context
from prefsweep.stages import dpo, generate_pairs, reference_logps


def test_all_pairs_of_a_prompt_but_ties_and_equal_answers() -> None:
    rows = [
        {"id": name, "sample": number, "prompt": f"{name}?", "completion": completion, "kind": None}
        | {"ended": completion != "w"}
        for name, completions in (("a", "wxyz"), ("b", "vvuu"), ("c", "stst"))
        for number, completion in enumerate(completions)
    ]
    scored = [3.0, 1.0, 2.0, 0.0, *(1.0, 1.0, 1.0, 5.0), *(0.5, 0.5, 0.5, 0.5)]
    counts: Counter[str] = Counter()
    pairs = generate_pairs.ranked_pairs(rows, scored, {"a": "A", "b": "B", "c": "C"}, counts)
    triples = [(pair["group"], pair["chosen"], pair["rejected"]) for pair in pairs]
    assert triples[:6] == [("A", *pair) for pair in ("wx", "wy", "wz", "yx", "xz", "yz")]
    assert triples[6:] == [("B", "u", "v"), ("B", "u", "v")]
    assert counts == {"labels": 12, "equal_completions": 2 + 2, "ties": 2 + 4}
    assert len({pair["id"] for pair in pairs}) == len(pairs)
    assert [pair["chosen_ended"] for pair in pairs] == [pair["chosen"] != "w" for pair in pairs]
    assert [pair["rejected_ended"] for pair in pairs] == [pair["rejected"] != "w" for pair in pairs]


@pytest.fixture
def config(composed: Callable[..., Any], model_folders: dict[str, Path], tmp_path: Path) -> Callable[..., Any]:
    classifier = save_classifier("distilbert", ("NEGATIVE", "POSITIVE"), tmp_path / "classifier")

    def make(*words: str) -> Any:
        model = ["model=gpt2", f"model.path={model_folders['gpt2']}"]
        small = [
            "stages.generate_pairs.prompts=12",
            "stages.generate_pairs.validation_prompts=4",
            "stages.generate_pairs.max_new_tokens=12",
        ]
        reward = ["scorer@reward=distilbert-imdb", f"reward.path={classifier}", "dataset.pairs=generated"]
        short = ["stages.dpo.batch_size=8", "stages.dpo.max_steps=2", "stages.dpo.max_length=96"]
        return composed(*model, *small, *reward, *short, *words)

    return make


def run(config: Config, folder: Path, context: Context) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    sections = {"model": config.model, "dataset": config.dataset, "reward": config.reward}
    return generate_pairs.run(config.stages.generate_pairs, **sections, folder=folder, context=context)


def test_the_reward_prefers_each_chosen_answer(config: Any, new_context: Any, tmp_path: Path) -> None:
    made = config()
    metrics = run(made, tmp_path / "pairs", new_context("pairs"))
    rows = list(read_jsonl(tmp_path / "pairs/train.jsonl"))
    assert metrics["labels"] == (12 + 4) * 4
    assert metrics["train/pairs"] == len(rows) > 12
    scorer = load_scorer(made.reward, torch.device("cpu"))
    prompts = [row["prompt"] for row in rows]
    better, worse = (scorer.score(prompts, [row[side] for row in rows])["score"] for side in ("chosen", "rejected"))
    assert all(high > low for high, low in zip(better, worse, strict=True))


def test_the_reward_is_passed_which_answers_ended(
    config: Any, new_context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ends:
        def score(self, prompts: list[str], completions: list[str], ended: list[bool]) -> dict[str, list[float]]:
            return {"score": list(map(float, ended))}

    monkeypatch.setattr(generate_pairs, "load_scorer", lambda *rest: Ends())
    run(config("stages.generate_pairs.max_new_tokens=40"), tmp_path / "pairs", new_context("pairs"))
    rows = list(read_jsonl(tmp_path / "pairs/train.jsonl"))
    assert rows and all(row["chosen_ended"] and not row["rejected_ended"] for row in rows)


def test_a_killed_build_goes_on_and_ends_the_same(config: Any, new_context: Any, tmp_path: Path) -> None:
    made = config()

    def work(name: str) -> list[dict[str, Any]]:
        run(made, tmp_path / f"{name}-artifact", new_context(name, forward_batch=4))
        return [
            row
            for split in ("validation", "train")
            for row in list(read_jsonl(tmp_path / f"{name}-artifact/{split}.jsonl"))
        ]

    assert die_at_call("prefsweep.models.decoding.sample", 7, lambda: work("killed")) == -signal.SIGKILL
    rows = list(read_jsonl(new_context("killed").checkpoints / "train.jsonl"))
    assert 0 < len(rows) < 48
    assert work("killed") == work("undisturbed")


def test_dpo_learns_from_them_and_starts_at_ln_2(config: Any, new_context: Any, tmp_path: Path) -> None:
    made = config()
    run(made, tmp_path / "pairs", new_context("pairs"))
    sections = {"model": made.model, "dataset": made.dataset}
    for stage in (reference_logps, dpo):
        name = stage.__name__.rpartition(".")[2]
        folder, context = tmp_path / name, new_context(name, log_every=1)
        folder.mkdir(exist_ok=True)
        inputs = {"pairs": tmp_path / "pairs"} | ({"reference": tmp_path / "reference_logps"} if stage is dpo else {})
        stage.run(getattr(made.stages, name), **sections, folder=folder, context=context, **inputs)
    assert next(context.history.rows())["loss"] == pytest.approx(math.log(2), abs=1e-6)


def identities(config: Config) -> dict[str, str]:
    return {stage.role: stage.identity for stage in prepare([], config).plan.stages}


def test_the_judge_and_the_seed_have_no_part_in_them_and_the_reward_has(config: Any, tmp_path: Path) -> None:
    one = identities(config("method=dpo"))
    judged = identities(config("method=dpo", "scorer@judge=deberta-v3"))
    assert one["generate_pairs"] == judged["generate_pairs"] and one["dpo"] == judged["dpo"]
    seeded = identities(config("method=dpo", "seed=7"))
    assert one["generate_pairs"] == seeded["generate_pairs"] and one["dpo"] != seeded["dpo"]
    rewarded = identities(config("method=dpo", "reward.output=probability"))
    assert one["generate_pairs"] != rewarded["generate_pairs"]


def test_a_dataset_of_pairs_makes_none(config: Any) -> None:
    assert "generate_pairs" not in identities(config("method=dpo", "dataset.pairs=dataset"))
    assert "generate_pairs" in identities(config("method=sft+dpo"))


@pytest.mark.parametrize(
    ("method", "small", "source"),
    [
        ("sft+dpo", [], "sft"),
        ("dpo", [], None),
        ("sft+dpo", ["debug=smoke"], "sft"),
        ("dpo", ["debug=smoke"], "pretrain"),
    ],
)
def test_imdbs_pairs_are_answers_of_whom_dpo_starts_from(method: str, small: list[str], source: str | None) -> None:
    """None: the weights as they are."""
    with composing():
        plan = plan_of(compose(["dataset=imdb", "model=gpt2", f"method={method}", *small]))
    stages = {stage.role: stage for stage in plan.stages}
    wanted = {"policy": stages[source].identity} if source else {}
    for role in ("generate_pairs", "reference_logps", "dpo"):
        inputs = stages[role].inputs
        assert {name: inputs[name].identity for name in inputs if name == "policy"} == wanted
