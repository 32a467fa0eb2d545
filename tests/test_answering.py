"""What a policy answers at each validation of its training, what the judge says of it, and where it is read again."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefsweep.config.compose import compose, composing
from prefsweep.data.datasets import synthetic
from prefsweep.data.sources import load
from prefsweep.data.views import encode_prompts
from prefsweep.jobs.job import plan_of
from prefsweep.models import decoding
from prefsweep.models.loading import load_policy
from prefsweep.pipeline.files import read_jsonl
from prefsweep.pipeline.stage import Context
from prefsweep.stages import judging, sft
from prefsweep.stages.generate import distinct_prompts
from workplace import Workplace

SHORT = ("batch_size=8", "max_steps=4", "warmup_steps=0", "max_length=96", "validation_prompts=6")


@pytest.fixture
def config(composed: Callable[..., Any], model_folders: dict[str, Path]) -> Callable[..., Any]:
    def make(*words: str, model: str = "gpt2") -> Any:
        overrides = [
            f"stages.sft.{word}" for word in (*SHORT, "validation_max_new_tokens=12", "evaluate_every=2", *words)
        ]
        return composed("model=gpt2", f"model.path={model_folders[model]}", *overrides)

    return make


def train(config: Any, folder: Path, context: Context) -> Path:
    folder.mkdir()
    sft.run(config.stages.sft, model=config.model, dataset=config.dataset, folder=folder, context=context)
    return folder


@pytest.mark.parametrize(
    ("model", "words"),
    [("gpt2", ()), ("opt", ()), ("gpt2", ("lora=true", "adapter.dropout=0.5", "learning_rate=1e-2"))],
    ids=["gpt2", "opt", "lora"],
)
def test_they_are_the_policys_own_to_the_first_validation_prompts(
    model: str, words: tuple[str, ...], config: Any, new_context: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """Each drawn again, alone, from the state that the stage left; of adapters without their dropout."""
    made = config(*words, model=model)
    stage = train(made, tmp_path / "sft", new_context("checkpoints", forward_batch=4))
    rows = list(read_jsonl(stage / "validation.jsonl"))
    assert [row["step"] for row in rows] == [2] * 6 + [4] * 6
    held_out = distinct_prompts(load(made.dataset, "validation", tokenizer))[:6]
    policy = load_policy(made.model, stage).eval()
    for index, (example, row) in enumerate(zip(held_out, rows[6:], strict=True)):
        uniform = decoding.uniforms([f"validation/{index}"], 12, made.stages.sft.seed)
        prompts = encode_prompts([example.prompt], tokenizer)
        (drawn,) = decoding.sample(policy, prompts, uniform, tokenizer.eos_token_id, tokenizer.pad_token_id, 1.0)
        assert row["completion"] == tokenizer.decode(drawn, skip_special_tokens=True)
        assert row["prompt"] == example.prompt
        assert row["ended"] == (drawn[-1] == tokenizer.eos_token_id)


def test_a_training_goes_as_it_would_unasked(config: Any, new_context: Any, tmp_path: Path) -> None:
    """With adapters that have dropout, whose draws would show one number taken from them."""
    folders = [
        train(
            config("lora=true", "adapter.dropout=0.2", f"validation_prompts={prompts}"),
            tmp_path / str(prompts),
            new_context(f"checkpoints-{prompts}"),
        )
        for prompts in (0, 6)
    ]
    without, with_answers = (load_file(folder / "adapters/00/adapter_model.safetensors") for folder in folders)
    assert all(torch.equal(without[name], with_answers[name]) for name in without)
    assert not (folders[0] / "validation.jsonl").exists()


def test_the_draws_are_those_of_every_validation(config: Any, new_context: Any, tmp_path: Path) -> None:
    """So a policy that stands still answers the same."""
    stage = train(config("learning_rate=1e-30"), tmp_path / "sft", new_context("checkpoints"))
    rows = [{**row, "step": 0} for row in list(read_jsonl(stage / "validation.jsonl"))]
    assert rows[:6] == rows[6:]


def test_the_judges_mean_by_step(config: Any, new_context: Any, tmp_path: Path) -> None:
    made, trained, folder = config(), tmp_path / "trained", tmp_path / "validate"
    pair = synthetic.preferences(1, seed=3, coherence=0.74, noise=0.0)[0]
    texts = [pair.completion("chosen"), pair.completion("rejected"), " Film the."]
    rows = [(4, texts[0]), (4, texts[1]), (8, texts[0]), (8, texts[0]), (12, texts[2]), (12, texts[1])]
    for path in (trained, folder):
        path.mkdir()
    answers = [
        {"step": step, "prompt": pair.prompt, "completion": completion, "ended": True} for step, completion in rows
    ]
    (trained / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    context = new_context("checkpoints")
    context.history.append(4, {"validation/judge": 9.0})  # of an attempt that was killed
    metrics = judging.judge_validation(
        made.stages.judge_validation, judge=made.judge, folder=folder, context=context, trained=trained
    )
    truth = {text: synthetic.true_reward(pair.prompt + text) for text in texts}
    assert len(set(truth.values())) > 1
    expected = {step: fmean(truth[completion] for at, completion in rows if at == step) for step in (4, 8, 12)}
    means = [(row["step"], row["validation/judge"]) for row in context.history.rows()]
    assert means == [(step, pytest.approx(mean)) for step, mean in expected.items()]
    assert [row["judge"] for row in list(read_jsonl(folder / "validation.jsonl"))] == [
        truth[completion] for _, completion in rows
    ]
    assert metrics == {"completions": 6, "validations": 3}


@pytest.mark.parametrize(
    ("words", "validates"),
    [
        (["method=base"], False),
        (["method=sft"], True),
        (["method=sft+dpo"], True),
        (["method=sft+dpo", "stages.dpo.validation_prompts=0"], False),
        (["method=ppo"], True),
    ],
)
def test_who_answers_is_judged(words: list[str], validates: bool) -> None:
    with composing():
        plan = plan_of(compose(words))
    assert ("judge_validation" in plan.used) is validates


def test_how_many_tokens_matters_to_nobody_who_answers_none(composed: Callable[..., Any]) -> None:
    def identity(*words: str) -> str:
        return plan_of(composed("method=sft", *words)).identity

    assert identity("stages.sft.validation_max_new_tokens=20") != identity()
    none = "stages.sft.validation_prompts=0"
    assert identity(none, "stages.sft.validation_max_new_tokens=20") == identity(none)


@pytest.mark.slow
def test_a_sweep_chosen_by_what_the_judge_said_on_validation(tmp_path: Path) -> None:
    """Over two methods that validate by other things: `best` takes the judge's word for both, and on validation."""
    workplace = Workplace(tmp_path)
    every = ["stages.dpo.evaluate_every=2", "stages.ppo.evaluate_every=1", "scorer@judge=deberta-v3"]
    assert workplace.run("-m", "method=dpo,ppo", *every, "sweep=s", "tracking=off").returncode == 0
    means = {}
    for name, run in workplace.jobs("s").items():
        stage = tmp_path / "outputs/stages/judge_validation" / run["stages"]["judge_validation"]
        rows = list(read_jsonl(stage / "validation.jsonl"))
        last = max(row["step"] for row in rows)
        means[name.partition("/")[0]] = fmean(row["judge"] for row in rows if row["step"] == last)
    done = workplace.command("best", "multirun_sweeps/s", "--by", "validation/judge")
    assert done.returncode == 0, done.stderr
    ordered = sorted(means, key=lambda name: -means[name])
    for number, name in enumerate(ordered, 1):
        assert f"{number}  validation/judge {means[name]:.4f}  method {name}" in done.stdout
    assert (tmp_path / "multirun_sweeps/s/efficiency.png").is_file()


def test_forward_batches_do_not_matter(config: Any, new_context: Any, tmp_path: Path) -> None:
    def rows(size: int) -> list[dict[str, Any]]:
        stage = train(config(), tmp_path / str(size), new_context(f"checkpoints-{size}", forward_batch=size))
        return list(read_jsonl(stage / "validation.jsonl"))

    assert rows(1) == rows(64)
