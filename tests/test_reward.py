"""The reward stage: its loss, its split, resume, what it learns, and what stands between it and who uses it."""

import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from architectures import save_classifier
from killing import die_at
from prefsweep.data.datasets.synthetic import preferences
from prefsweep.data.sources import load
from prefsweep.errors import UserError
from prefsweep.evaluation import ranking
from prefsweep.jobs.job import prepare
from prefsweep.models.heads import HEAD, REWARD, RewardModel, pad_right
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.stage import Context
from prefsweep.stages import reward_model
from prefsweep.stages.on_policy import check_reward
from prefsweep.stages.reward_model import pair_rewards
from prefsweep.stages.training import checkpoints
from test_shared_prefix import build
from workplace import Workplace

SHORT = ("batch_size=8", "max_steps=6", "warmup_steps=0", "max_length=96", "learning_rate=1e-3")
NO_GATE = ("stages.ppo.min_accuracy=0", "stages.ppo.must_beat_length=false")
USER = "User: {prompt}\nAssistant:{completion}"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier("bert", ("LABEL_0",), tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def config(composed: Callable[..., Any], model_folders: dict[str, Path], encoder: Path) -> Callable[..., Any]:
    def make(*words: str, backbone: str = "gpt2") -> Any:
        if backbone == "bert":
            start = ["backbone=encoder", f"encoder.path={encoder}", "reads=[dataset]"]
            overrides = [f"stages.reward_model.{word}" for word in (*SHORT, *start, *words)]
            return composed(*overrides)
        overrides = [f"stages.reward_model.{word}" for word in (*SHORT, *words)]
        return composed("model=gpt2", f"model.path={model_folders[backbone]}", *overrides)

    return make


def run(config: Any, folder: Path, context: Context) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    sections = {name: getattr(config, name) for name in config.stages.reward_model.reads}
    return reward_model.run(config.stages.reward_model, **sections, folder=folder, context=context)


def trainer_of(config: Any, context: Context, rows: int = 8, micro_batch: int = 64) -> Any:
    """A trainer over a few pairs of the world, with a head that says something; and its first batch."""
    stage = config.stages.reward_model
    backbone, tokenizer = reward_model.start(stage, config.model, None)
    pairs, _ = reward_model.pair_rows(preferences(rows, seed=1, coherence=0.7, noise=0.0), tokenizer, stage)
    model = RewardModel(backbone)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    trainer = reward_model.reward_trainer(stage, model, tokenizer, {"train": pairs, "validation": pairs}, context)
    trainer.micro_batch = micro_batch
    return trainer, trainer._prepare_inputs(trainer.data_collator(list(pairs)))


# --------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("backbone", ["gpt2", "opt", "bert"])
def test_the_loss_is_bradley_and_terrys(backbone: str, config: Any, new_context: Any) -> None:
    """By plain transformers, one text at a time, nothing padded: −log of the odds' share of the chosen answer."""
    made = config(backbone=backbone)
    trainer, inputs = trainer_of(made, new_context())
    with torch.no_grad():
        loss = float(trainer.compute_loss(trainer.model.eval(), inputs))
    where = made.stages.reward_model.encoder.path if backbone == "bert" else made.model.path
    plain, tokenizer = (
        AutoModel.from_pretrained(where, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(where),
    )

    def score(prompt: str, completion: str) -> float:
        ids = tokenizer(prompt)["input_ids"][: -1 if backbone == "bert" else None]
        ids += tokenizer(completion, add_special_tokens=False)["input_ids"]
        ids.append(tokenizer.sep_token_id if backbone == "bert" else tokenizer.eos_token_id)
        with torch.no_grad():
            states = plain(torch.tensor([ids])).last_hidden_state[0]
            return float(trainer.model.head(states[-1]))

    expected = 0.0
    for pair in (pairs := preferences(8, seed=1, coherence=0.7, noise=0.0)):
        better, worse = math.exp(score(pair.prompt, pair.chosen)), math.exp(score(pair.prompt, pair.rejected))
        expected -= math.log(better / (better + worse)) / len(pairs)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_the_first_loss_is_ln_2_and_no_seed_is_in_the_start(config: Any, new_context: Any, tmp_path: Path) -> None:
    contexts = [new_context(name, log_every=1, resume_checkpoint_every=100) for name in ("a", "b", "c")]
    for seed, context in zip((1, 1, 2), contexts, strict=True):
        run(config(f"seed={seed}"), tmp_path / f"artifact-{context.checkpoints.parent.name}", context)
    losses = [[row["loss"] for row in context.history.rows() if "loss" in row] for context in contexts]
    assert losses[0][0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[0] == losses[1] != losses[2]


def test_the_head_is_as_wide_as_the_state_and_not_as_the_config_says(config: Any, new_context: Any) -> None:
    trainer, _ = trainer_of(config(backbone="opt"), new_context())
    assert trainer.model.head.in_features == 16 != trainer.model.backbone.config.hidden_size


@pytest.mark.parametrize("kind", ["gpt2", "opt", "qwen3"])
def test_a_prompt_that_is_read_once_gives_the_same_rewards(kind: str) -> None:
    model = RewardModel(build(kind).base_model)
    torch.nn.init.normal_(model.head.weight)
    pairs = [([5, 6, 7, 8], [5, 6, 7, 9, 10, 11]), ([12, 13], [12, 13]), ([14, 15, 16], [17, 15])]
    ids, attention = pad_right([text for side in zip(*pairs, strict=True) for text in side], 0)

    def rewards(how: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        values = how(ids, attention)
        (values * torch.linspace(-1, 2, len(values))).sum().backward()
        return values, {
            name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
        }

    (apart, expected), (together, gradients) = rewards(model), rewards(partial(pair_rewards, model))
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    shapes = list[tuple[int, ...]]()
    model.backbone.register_forward_pre_hook(
        lambda _, args, options: shapes.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    pair_rewards(model, ids, attention)
    assert shapes == [(2, 8)]  # 4 + 6 tokens but 2, which both begin with; beside them 3 and 5 in a row
    for name, gradient in gradients.items():
        scale = max(float(expected[name].abs().max()), 1)
        torch.testing.assert_close(gradient, expected[name], atol=1e-5 * scale, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("backbone", "center"), [("gpt2", 0.0), ("gpt2", 0.5), ("bert", 0.0)])
def test_the_split_of_a_batch_changes_nothing(backbone: str, center: float, config: Any, new_context: Any) -> None:
    def gradients(part: int) -> dict[str, Any]:
        made = config(f"center_rewards_coefficient={center}", backbone=backbone)
        trainer, inputs = trainer_of(made, new_context(), rows=7, micro_batch=part)
        loss = trainer.training_step(trainer.model, inputs)
        named = {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.grad is not None}
        return {"loss": loss, **named}

    whole = gradients(7)
    assert len(whole) > 10
    # What moves both rewards alike has a gradient of 0 up to rounding: one scale for all.
    scale = max(float(gradient.abs().max()) for gradient in whole.values())
    for part in (1, 2):
        for name, gradient in gradients(part).items():
            assert torch.allclose(gradient, whole[name], rtol=1e-4, atol=4e-6 * scale), name


def test_centring_adds_the_mean_squared_sum_of_both_rewards(config: Any, new_context: Any) -> None:
    losses = []
    for coefficient in (0.0, 0.25):
        made = config(f"center_rewards_coefficient={coefficient}")
        trainer, inputs = trainer_of(made, new_context())
        losses.append(float(trainer.compute_loss(trainer.model.eval(), inputs).detach()))
    with torch.no_grad():
        rewards = trainer.model(**inputs).tolist()
    sums = [better + worse for better, worse in zip(rewards[:8], rewards[8:], strict=True)]
    assert losses[1] - losses[0] == pytest.approx(0.25 * sum(value**2 for value in sums) / 8, abs=1e-5)
    assert losses[1] - losses[0] > 0.01


@pytest.mark.parametrize(("rate", "expected"), [("0.02", 0.02), ("null", 1e-3)])
def test_the_head_has_a_learning_rate_of_its_own(rate: str, expected: float, config: Any, new_context: Any) -> None:
    """Adam's first step is as long as the rate; the schedule scales both rates alike."""
    trainer, inputs = trainer_of(config(f"head_learning_rate={rate}", "weight_decay=0.5"), new_context())
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    optimizer = trainer.create_optimizer()
    assert {group["weight_decay"] for group in optimizer.param_groups if group["lr"] == expected} == {0.0, 0.5}
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    trainer.training_step(trainer.model, inputs)
    optimizer.step()
    steps = {name: float((weight - before[name]).abs().max()) for name, weight in trainer.model.named_parameters()}
    assert steps["head.weight"] == pytest.approx(expected, rel=1e-3)
    assert max(step for name, step in steps.items() if name.startswith("backbone")) == pytest.approx(1e-3, rel=1e-2)


def test_a_text_that_did_not_end_is_learned_without_eos(config: Any, tokenizer: Any) -> None:
    (pair,) = preferences(1, seed=1, coherence=0.7, noise=0.0)
    pairs = [pair, replace(pair, rejected_ended=False)]
    rows, _ = reward_model.pair_rows(pairs, tokenizer, config().stages.reward_model)
    assert rows[0]["chosen"] == rows[1]["chosen"] and rows[1]["chosen"][-1] == tokenizer.eos_token_id
    assert rows[0]["rejected"] == [*rows[1]["rejected"], tokenizer.eos_token_id]


def test_the_temperature_is_where_the_loss_has_no_slope() -> None:
    torch.manual_seed(0)
    margin = torch.randn(4000).double() * 3
    margin = torch.where(torch.rand(4000) < (margin / 2.5).sigmoid(), margin, -margin)  # labels of temperature 2.5
    fitted = ranking.fitted_temperature(margin)
    assert fitted == pytest.approx(2.5, rel=0.1)
    assert float((margin * (-margin / fitted).sigmoid()).mean()) == pytest.approx(0.0, abs=1e-4)
    assert ranking.fitted_temperature(margin / 100) == pytest.approx(fitted / 100, rel=1e-3)
    metrics = ranking.metrics(margin, torch.zeros(4000))
    assert metrics["temperature"] == fitted
    assert metrics["calibration_error_scaled"] == ranking.calibration_error(margin / fitted)
    assert metrics["calibration_error_scaled"] < metrics["calibration_error"] / 3


def test_margins_without_a_best_temperature_get_an_end_of_the_range() -> None:
    low, high = ranking.TEMPERATURES
    assert low <= ranking.fitted_temperature(torch.full((9,), 0.01)) < 10 * low
    for margin in (torch.full((9,), -2.0), torch.zeros(9), torch.tensor([40.0, -40.0])):
        assert high / 10 < ranking.fitted_temperature(margin) <= high


def test_calibration_is_confidence_against_accuracy_by_bins() -> None:
    torch.manual_seed(0)
    margin = torch.randn(500) * 2 + 0.5
    expected = 0.0
    for low in [0.5 + 0.05 * index for index in range(10)]:
        held = [float(m) for m in margin if low <= 1 / (1 + math.exp(-abs(float(m)))) < low + 0.05]
        if held:
            confidence = sum(1 / (1 + math.exp(-abs(m))) for m in held) / len(held)
            accuracy = sum(m > 0 for m in held) / len(held)
            expected += len(held) / 500 * abs(confidence - accuracy)
    assert ranking.calibration_error(margin) == pytest.approx(expected, abs=1e-5)
    assert ranking.calibration_error(torch.full((10,), 40.0)) == pytest.approx(0.0)
    assert ranking.calibration_error(torch.tensor([40.0, -40.0])) == pytest.approx(0.5)


def test_ties_count_half_and_length_is_judged_both_ways() -> None:
    assert ranking.metrics(torch.tensor([1.0, 0.0, -1.0, 2.0]), torch.zeros(4))["accuracy"] == 0.625
    assert ranking.length_accuracy([5, 5, 5, 5], [1, 5, 1, 9]) == 0.625
    assert ranking.length_accuracy([1, 1, 9], [5, 5, 5]) == pytest.approx(2 / 3)


def test_nothing_is_dropped_for_being_long_and_what_is_cut_is_counted(
    config: Any, new_context: Any, tmp_path: Path
) -> None:
    metrics = run(config("max_length=24"), tmp_path / "artifact", new_context())
    assert metrics["rows"] == 2 * 48
    assert metrics["completions_truncated"] > 48


def test_a_length_that_the_backbone_has_no_positions_for_is_refused(
    config: Any, new_context: Any, tmp_path: Path
) -> None:
    for backbone in ("gpt2", "bert"):
        with pytest.raises(UserError, match=r"^stages.reward_model.max_length=97: the backbone has 96 positions$"):
            run(config("max_length=97", backbone=backbone), tmp_path / "artifact", new_context())


# ------------------------------------------------------------------------------------------ the artifact and its use


@pytest.mark.parametrize("backbone", ["gpt2", "opt", "bert"])
def test_the_scorer_ranks_as_validation_said(backbone: str, config: Any, new_context: Any, tmp_path: Path) -> None:
    made = config(f'template="{USER}"', backbone=backbone)
    metrics = run(made, tmp_path / "artifact", new_context())
    scorer = load_scorer(made.reward, torch.device("cpu"), tmp_path / "artifact")
    pairs = load(made.dataset, "validation")
    prompts = [pair.prompt for pair in pairs]
    chosen, rejected = (
        torch.tensor(scorer.score(prompts, [getattr(pair, side) for pair in pairs])["score"])
        for side in ("chosen", "rejected")
    )
    measured = ranking.metrics(chosen, rejected)
    for name, value in measured.items():
        assert metrics[f"validation/{name}"] == pytest.approx(value, abs=1e-5)
    saved = json.loads((tmp_path / "artifact" / REWARD).read_text())
    lengths = {"max_length": made.stages.reward_model.max_length, "prompt_tokens": None}
    assert saved == {"template": USER, **lengths, "metrics": metrics}


def test_a_model_of_the_world_beats_chance_and_length(
    config: Any, composed: Any, new_context: Any, tmp_path: Path
) -> None:
    made = config("epochs=3", "max_steps=null", "batch_size=16", "learning_rate=2e-3")
    made.dataset.size, made.dataset.validation, made.dataset.noise = 2000, 200, 0.0
    metrics = run(made, tmp_path / "artifact", new_context(micro_batch=16, forward_batch=64))
    assert metrics["validation/accuracy"] > 0.62
    assert metrics["validation/accuracy"] > metrics["validation/length_accuracy"] + 0.05
    assert metrics["validation/loss"] < math.log(2)


def test_the_best_state_is_kept_whole(config: Any, new_context: Any, tmp_path: Path) -> None:
    """A rate far too high: the last state is not the best, and the head belongs to its backbone."""
    context = new_context()
    words = ("evaluate_every=1", "checkpoint=best", "learning_rate=0.3", "save_every=1")
    metrics = run(config(*words), tmp_path / "artifact", context)
    rows = [row for row in context.history.rows() if "validation/loss" in row]
    assert metrics["validation/loss"] == min(row["validation/loss"] for row in rows) < rows[-1]["validation/loss"]
    best = context.checkpoints / "best"
    assert torch.equal(load_file(best / HEAD)["weight"], load_file(tmp_path / "artifact" / HEAD)["weight"])
    checkpoint = tmp_path / "artifact/steps" / str(metrics["step"])
    assert torch.equal(load_file(checkpoint / HEAD)["weight"], load_file(best / HEAD)["weight"])
    saved = (json.loads((folder / REWARD).read_text()) for folder in (checkpoint, tmp_path / "artifact"))
    assert next(saved) == next(saved) | {"metrics": {}}


# ---------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("backbone", ["gpt2", "bert"])
def test_a_killed_training_ends_as_an_undisturbed_one(
    backbone: str, config: Any, new_context: Any, tmp_path: Path
) -> None:
    made = config("evaluate_every=2", "checkpoint=best", backbone=backbone)

    def work(name: str) -> tuple[dict[str, Any], Context]:
        context = new_context(name, log_every=1, resume_checkpoint_every=2)
        return run(made, tmp_path / f"{name}-artifact", context), context

    assert die_at(5, lambda: work("killed")) == -signal.SIGKILL
    assert [checkpoint.name for checkpoint in checkpoints(new_context("killed").checkpoints)] == ["checkpoint-4"]
    resumed, resumed_context = work("killed")
    undisturbed, context = work("undisturbed")
    assert resumed == undisturbed
    assert list(resumed_context.history.rows()) == list(context.history.rows())
    for name in ("model.safetensors", HEAD):
        ours, theirs = (load_file(tmp_path / f"{which}-artifact" / name) for which in ("killed", "undisturbed"))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


# ------------------------------------------------------------------------------------------------------------- plans


def identities(made: Any) -> dict[str, str]:
    return {stage.role: stage.identity for stage in prepare([], made).plan.stages}


def test_a_scorer_that_is_there_needs_no_reward_stage(composed: Any, encoder: Path, tmp_path: Path) -> None:
    trained, given = identities(composed("method=ppo")), identities(composed("method=ppo", "scorer@reward=deberta-v3"))
    finished = identities(composed("method=ppo", f"reward.path={encoder}"))
    assert "reward_model" in trained
    assert "reward_model" not in given and "reward_model" not in finished
    assert len({plan["ppo"] for plan in (trained, given, finished)}) == 3


def test_a_gate_is_in_no_identity_and_a_label_is(composed: Any) -> None:
    trained, lax = identities(composed("method=ppo")), identities(composed("method=ppo", *NO_GATE))
    assert trained == lax
    words = ("method=ppo", "scorer@reward=distilbert-imdb")
    positive, negative = identities(composed(*words)), identities(composed(*words, "reward.label=NEGATIVE"))
    assert positive["ppo"] != negative["ppo"]


def test_an_encoders_reward_model_is_shared_by_every_model(composed: Any, model_folders: dict[str, Path]) -> None:
    def reward_of(model: str) -> str:
        words = ("stages.reward_model.backbone=encoder", "stages.reward_model.reads=[dataset]", "model=gpt2")
        return identities(composed("method=ppo", *words, f"model.path={model_folders[model]}"))["reward_model"]

    assert reward_of("gpt2") == reward_of("opt")


def test_another_judge_retrains_nothing(composed: Any) -> None:
    ours, theirs = (identities(composed("method=ppo", f"scorer@judge={name}")) for name in ("oracle", "deberta-v3"))
    assert ours["ppo"] == theirs["ppo"] and ours["reward_model"] == theirs["reward_model"]
    assert ours["judge_completions/result"] != theirs["judge_completions/result"]


def test_a_judge_that_is_the_reward_is_recognised_by_its_content(composed: Any, tmp_path: Path) -> None:
    """By a path to the stage or to a state in it, or by a copy of the weights, whatever its other settings."""
    refused = pytest.raises(UserError, match=r"^scorer@judge=\S+: is the reward that the method trains on; ")
    stage = tmp_path / "reward_model"
    for folder in (stage, stage / "steps/40"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        words = ("method=ppo", "scorer@judge=trained", f"judge.path={folder}")
        identities(composed(*words))  # another reward model is a judge
        (stage / "record.json").write_text(json.dumps({"identity": identities(composed("method=ppo"))["reward_model"]}))
        with refused:
            identities(composed(*words))
        (stage / "record.json").unlink()
    copy = shutil.copytree(stage, tmp_path / "copy")
    hub = ("scorer@reward=distilbert-imdb", "scorer@judge=distilbert-imdb", "judge.max_length=64")
    with refused:
        identities(composed("method=ppo", *hub))
    with refused:
        identities(composed("method=ppo", *hub, f"reward.path={stage}", f"judge.path={copy}"))


def test_a_preset_may_be_judged_by_what_it_optimised(composed: Any) -> None:
    assert "ppo" in identities(composed("method=ppo", "scorer@reward=oracle", "method.allow_reward_as_judge=true"))


# ------------------------------------------------------------------------------------------------------- the gates


@pytest.mark.parametrize(
    ("metrics", "key"),
    [
        ({"validation/accuracy": 0.5, "validation/length_accuracy": 0.4}, "min_accuracy=0.55"),
        ({"validation/accuracy": 0.9, "validation/length_accuracy": 0.95}, "must_beat_length=true"),
        ({}, None),  # a state kept while training
    ],
)
def test_ppo_refuses_a_reward_that_learned_nothing_in_one_line(
    metrics: dict[str, float], key: str | None, composed: Callable[..., Any]
) -> None:
    with pytest.raises(UserError, match=f"^stages.ppo.{key}: " if key else "^reward.path: ") as refused:
        check_reward(composed().stages.ppo, metrics)
    assert "\n" not in str(refused.value)
    check_reward(composed(*NO_GATE).stages.ppo, metrics)


def test_a_refused_ppo_has_failed_and_goes_on_from_its_reward_with_the_gate_lowered(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    line = ["method=ppo", "tracking=off", "runtime.progress=false"]
    done = workplace.run(*line, "stages.ppo.min_accuracy=1")
    message = "stages.ppo.min_accuracy=1.0: the reward model ranks "
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    run = workplace.single()
    assert run["status"] == "failed" and run["error"].startswith(f"UserError: {message}")
    (trained,) = workplace.stages("reward_model")
    written = (trained / "record.json").stat().st_mtime_ns
    assert workplace.stages("ppo") == []
    assert workplace.run(*line, "stages.ppo.min_accuracy=0").returncode == 0
    assert workplace.stages("reward_model") == [trained] and (trained / "record.json").stat().st_mtime_ns == written
    assert len(workplace.stages("ppo")) == 1
