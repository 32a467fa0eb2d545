"""LoRA: what is trained, what is left, what the next stage stands on, and that it is the same model again."""

import dataclasses
import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from killing import die_at
from ppo_toy import TARGETS, make_task, make_trainer, tiny
from prefsweep.__main__ import dispatch
from prefsweep.config.model_checks import LAYERS
from prefsweep.config.stages import PPOConfig
from prefsweep.errors import UserError
from prefsweep.models import adapters
from prefsweep.models.loading import load_learner, load_policy
from prefsweep.models.logprobs import completion_batch, completion_logprobs
from prefsweep.pipeline.fingerprint import canonical
from prefsweep.pipeline.stage import Context
from prefsweep.stages import callbacks, dpo, on_policy, ppo, reference_logps, sft

SHORT = ("batch_size=8", "max_steps=4", "warmup_steps=0", "max_length=96", "learning_rate=1e-2")
NAMES = ("gpt2", "opt")
Stage = Callable[..., Path]


@pytest.fixture
def config(composed: Callable[..., Any], model_folders: dict[str, Path]) -> Callable[..., Any]:
    def make(name: str, *words: str) -> Any:
        short = [f"stages.{stage}.{word}" for stage in ("sft", "dpo") for word in SHORT]
        lora = ["model.lora=true", "model.adapter.r=2", f"model.adapter.targets=[{','.join(TARGETS[name])}]"]
        return composed("model=gpt2", f"model.path={model_folders[name]}", *short, *lora, *words)

    return make


@pytest.fixture
def run(new_context: Any, tmp_path: Path) -> Stage:
    """A stage's artifact."""

    def made(stage: Any, config: Any, name: str = "", context: Context | None = None, **inputs: Any) -> Path:
        kind = stage.__name__.rpartition(".")[2]
        folder = tmp_path / f"{name or kind}-artifact"
        folder.mkdir(exist_ok=True)
        sections = {"model": config.model, "dataset": config.dataset}
        stage.run(
            getattr(config.stages, kind),
            **sections,
            folder=folder,
            context=context or new_context(name or kind),
            **inputs,
        )
        return folder

    return made


def logprobs(model: Any) -> torch.Tensor:
    batch = completion_batch([[5, 6, 7], [8, 9]], [[20, 21, 0], [22, 23, 24, 0]], 0, torch.device("cpu"))
    with torch.no_grad():
        return completion_logprobs(model.eval(), batch)


# -------------------------------------------------------------------------------------- what is left, and read again


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lora", [True, False])
def test_a_policy_that_is_loaded_back_says_what_it_said(
    lora: bool, name: str, config: Any, run: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_logprobs: list[torch.Tensor] = []
    save = callbacks.save

    def watched(model: Any, tokenizer: Any, folder: Path) -> None:
        saved_logprobs.append(logprobs(model))
        save(model, tokenizer, folder)

    monkeypatch.setattr("prefsweep.stages.training.save", watched)
    made = config(name, f"model.lora={str(lora).lower()}")
    folder = run(sft, made)
    assert (saved_logprobs[-1] - logprobs(load_policy(made.model, None))).abs().max() > 0.01, "nothing was learned"
    assert torch.allclose(saved_logprobs[-1], logprobs(load_policy(made.model, folder)), atol=1e-5)
    assert adapters.is_adapted(folder) == lora


@pytest.mark.parametrize("name", NAMES)
def test_after_an_sft_of_all_weights_the_reference_is_the_sft_model(
    name: str, config: Any, run: Stage, new_context: Any
) -> None:
    made = config(name, "stages.sft.lora=false")
    policy = run(sft, made)
    logps = run(reference_logps, made, policy=policy)
    context = new_context("dpo", log_every=1)
    result = run(dpo, made, context=context, policy=policy, reference=logps)
    assert next(context.history.rows())["loss"] == pytest.approx(math.log(2), abs=1e-6)
    start, end = (logprobs(load_policy(made.model, folder)) for folder in (policy, result))
    assert (start - end).abs().max() > 0.01
    shutil.rmtree(policy)  # whole without the folder of the stage before it
    assert torch.equal(logprobs(load_policy(made.model, result)), end)


def test_weights_that_a_run_made_are_linked_and_not_written_twice(config: Any, run: Stage) -> None:
    made = config("gpt2", "stages.sft.lora=false")
    policy = run(sft, made)
    result = run(dpo, made, policy=policy, reference=run(reference_logps, made, policy=policy))
    assert (result / "base/model.safetensors").samefile(policy / "model.safetensors")
    words = ("stages.dpo.evaluate_every=2", "stages.dpo.checkpoint=best", "stages.dpo.save_every=2")
    reference = policy.with_name("reference_logps-artifact")
    best = run(dpo, config("gpt2", *words), "best", policy=policy, reference=reference)
    for state in (best, best / "steps/2", best / "steps/4"):
        assert (state / "base/model.safetensors").samefile(policy / "model.safetensors")


# ------------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("stage", [sft, dpo])
def test_a_killed_training_of_adapters_ends_as_an_undisturbed_one(
    stage: Any, config: Any, run: Stage, new_context: Any, tmp_path: Path
) -> None:
    """With dropout, whose draws go on where they stopped."""
    name = stage.__name__.rpartition(".")[2]
    words = (f"stages.{name}.evaluate_every=2", f"stages.{name}.checkpoint=best")
    made = config("gpt2", "model.adapter.dropout=0.1", *words)
    inputs = {"reference": run(reference_logps, made)} if stage is dpo else {}

    def work(name: str) -> Path:
        return run(stage, made, name, new_context(name, log_every=1, resume_checkpoint_every=2), **inputs)

    assert die_at(3, lambda: work("killed")) == -signal.SIGKILL
    (checkpoint,) = (tmp_path / "killed/checkpoints").glob("checkpoint-*")
    assert not (checkpoint / "model.safetensors").exists()
    weights = [load_file(work(name) / "adapters/00/adapter_model.safetensors") for name in ("killed", "undisturbed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_gradient_checkpointing_changes_nothing(config: Any, run: Stage, new_context: Any) -> None:
    weights = [
        load_file(
            run(sft, config("opt"), f"checkpointing-{on}", new_context(f"work-{on}", gradient_checkpointing=on))
            / "adapters/00/adapter_model.safetensors"
        )
        for on in (True, False)
    ]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-6) for name in weights[1])


def test_ppo_moves_the_adapters_alone_and_its_reference_stays(ppo_config: Callable[..., PPOConfig]) -> None:
    before = tiny("gpt2")
    task = make_task(lora=True)
    policy, made = task.policy, make_trainer(ppo_config(), task)
    for _ in range(2):
        metrics, _ = made.iterate()
    assert metrics["kl"] > 0.01
    with adapters.adapters_off(policy):
        assert torch.equal(logprobs_of_words(policy), logprobs_of_words(before))
    assert not torch.equal(logprobs_of_words(policy), logprobs_of_words(before))
    again = make_task(lora=True)
    make_trainer(ppo_config(), again).restore(made.state())
    assert torch.equal(logprobs_of_words(again.policy), logprobs_of_words(policy))


def test_the_state_of_ppo_holds_what_is_trained(ppo_config: Callable[..., PPOConfig]) -> None:
    state = make_trainer(ppo_config(), make_task(lora=True)).state()["model"]
    assert all("lora_" in name or name.startswith("value_head.") for name in state)
    assert "policy.transformer.wte.weight" in make_trainer(ppo_config(), make_task()).state()["model"]


def logprobs_of_words(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[2, 3, 4, 5]])).logits


class Vowels:
    def score(self, prompts: list[str], completions: list[str], ended: Any = None) -> dict[str, list[float]]:
        return {
            "score": [
                sum(letter in "aeiou" for letter in completion) / (1 + len(completion)) for completion in completions
            ]
        }


@pytest.mark.parametrize("name", NAMES)
def test_ppo_after_an_sft_of_adapters_starts_at_the_sft_model(
    name: str, config: Any, run: Stage, new_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first KL is exactly 0, and what is left is the SFT's change and PPO's; a critic of its own is whole."""
    monkeypatch.setattr(on_policy, "load_scorer", lambda *rest: Vowels())
    sizes = ("iterations=2", "batch_size=8", "minibatch_size=4", "epochs=2", "normalisation_samples=8")
    rest = ("max_length=96", "response_tokens=[4,8]", "validation_prompts=4", "learning_rate=1e-2", "critic=separate")
    made = config(name, *(f"stages.ppo.{word}" for word in (*sizes, *rest)))
    first = run(sft, made)
    context = new_context("ppo", gradient_checkpointing=True)
    second = run(ppo, made, context=context, policy=first, reward=made.judge)
    rows = [row for row in context.history.rows() if "kl" in row]
    assert rows[0]["kl"] == 0 != rows[1]["kl"]
    assert rows[0]["ratio/first"] == rows[1]["ratio/first"] == 1
    by_hand = added_by_hand(load_policy(made.model, first), second / "adapters/01")
    assert torch.allclose(logprobs(load_policy(made.model, second)), logprobs(by_hand), atol=1e-4)
    assert (second / "critic/model.safetensors").is_file()
    assert not (second / "model.safetensors").exists()


def test_dropout_of_adapters_is_off_in_ppo(config: Any, tokenizer: Any) -> None:
    made = config("gpt2", "model.adapter.dropout=0.5", "stages.ppo.max_length=96")
    task = on_policy.make_task(made.stages.ppo, made.model, None, tokenizer, len, [], torch.device("cpu"))
    assert task.reference is task.policy
    assert not any(isinstance(module, torch.nn.Dropout) and module.p for module in task.policy.modules())


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model.adapter.r=0", r"adapter\.r=0: must be at least 1"),
        ("model.adapter.alpha=0", r"adapter\.alpha=0: must be at least 1"),
        ("model.adapter.dropout=1", r"adapter\.dropout=1\.0: must be below 1"),
        ("model.adapter.targets=[]", r"stages\.sft\.adapter\.targets=\[\]: name the layers"),
        ("model.adapter.targets=[q_proj]", r"stages\.sft\.adapter\.targets=q_proj: gpt2 has no such layer.*: c_attn"),
        ("model.adapter.targets=[ln_1]", r"targets=ln_1: gpt2 has no such layer"),
        ("stages.ppo.adapter.dropout=0.1", r"stages\.ppo\.adapter\.dropout=0\.1: must be 0"),
    ],
)
def test_what_cannot_be_adapted_is_refused_with_the_config(words: str, message: str, config: Any) -> None:
    with pytest.raises(UserError, match=message):
        config("gpt2", words)
    config("gpt2", words, "model.lora=false") if "targets" in words else None  # nobody reads it


@pytest.mark.parametrize("name", NAMES)
def test_a_hub_models_targets_are_looked_at_before_its_weights(name: str, config: Any, tmp_path: Path) -> None:
    made = config(name)
    shape = AutoConfig.from_pretrained(made.model.path)
    for target in ("fc3", "wte", "lm_head", "ln_1"):
        with pytest.raises(UserError, match=rf"targets: {name} has no layer {target}.*there are: .*(c_attn|q_proj)"):
            adapters.check_targets([target], shape)
    shape.save_pretrained(tmp_path / "hollow")  # no weights there at all
    made.model.path, made.stages.sft.adapter.targets = str(tmp_path / "hollow"), ["fc3"]
    with pytest.raises(UserError, match="no layer fc3"):
        load_learner(made.stages.sft, made.model, None)


@pytest.mark.parametrize("name", NAMES)
def test_the_layers_that_a_plan_knows_are_the_architectures(name: str, config: Any) -> None:
    adapters.check_targets(list(LAYERS[name]), AutoConfig.from_pretrained(config(name).model.path))


def test_a_stage_may_have_adapters_of_its_own(config: Any) -> None:
    made = config("gpt2", "stages.dpo.adapter.r=5", "stages.dpo.adapter.dropout=0.3").stages
    assert [(stage.adapter.r, stage.adapter.dropout) for stage in (made.sft, made.dpo)] == [(2, 0.0), (5, 0.3)]


def test_fresh_adapters_alone_are_trained_and_the_seed_alone_decides_how_they_start(config: Any) -> None:
    made, initial = config("gpt2"), []
    for before, seed in ((0, 1), (5, 1), (0, 2)):
        torch.manual_seed(before)
        made.stages.sft.seed = seed
        model = load_learner(made.stages.sft, made.model, None)
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        assert len(trained) == 2 * 2 * 3  # two matrices in each of two blocks: c_attn, and c_proj twice
        assert all("lora_" in name and weight.dtype == torch.float32 for name, weight in trained.items())
        assert torch.equal(logprobs(model), logprobs(load_policy(made.model, None)))
        initial.append(torch.cat([weight.flatten() for weight in trained.values()]))
    assert torch.equal(initial[0], initial[1])
    assert not torch.equal(initial[0], initial[2])


def added_by_hand(base: Any, folder: Path) -> Any:
    """W + (alpha / r) B A from one stage's files, in words of our own."""
    settings = json.loads((folder / "adapter_config.json").read_text())
    saved, scale = load_file(folder / "adapter_model.safetensors"), settings["lora_alpha"] / settings["r"]
    layers = dict(base.named_modules())
    with torch.no_grad():
        for name in {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in saved}:
            down, up = (saved[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
            change = scale * up @ down
            layers[name].weight += change.T if settings["fan_in_fan_out"] else change
    return base


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_of_adapters_adds_up(
    name: str, config: Any, run: Stage, new_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sft → dpo, dropout in both while they train; the weights are the base's plus every change, the loss starts at
    ln 2, and adapters are all that is left."""
    rates, save = list[set[float]](), callbacks.save

    def watched(model: Any, *rest: Any) -> None:
        rates.append({part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)})
        save(model, *rest)

    monkeypatch.setattr("prefsweep.stages.training.save", watched)
    made = config(name, "model.adapter.dropout=0.2", "stages.dpo.adapter.r=3")
    first = run(sft, made)
    context = new_context("dpo", log_every=1)
    second = run(dpo, made, context=context, policy=first, reference=run(reference_logps, made, policy=first))
    assert next(context.history.rows())["loss"] == pytest.approx(math.log(2), abs=1e-6)
    left = sorted(file.relative_to(second).as_posix() for file in second.rglob("*.safetensors"))
    assert left == [f"adapters/0{index}/adapter_model.safetensors" for index in range(2)]
    assert all("lora_" in key for file in left for key in load_file(second / file))
    assert all(0.2 in step_rates for step_rates in rates)
    shutil.rmtree(first)  # whole without the folder of the stage before it
    by_hand = load_policy(made.model, None)
    for link in adapters.stack(second):
        by_hand = added_by_hand(by_hand, link)
    assert len(rates) == 2
    assert torch.allclose(logprobs(load_policy(made.model, second)), logprobs(by_hand), atol=1e-4)


def test_the_rank_is_in_the_identity_of_what_trains_adapters_alone(config: Any) -> None:
    def identity(section: Any) -> Any:
        return canonical(section, lambda path: "content")

    for word in ("model.adapter.r=4", "model.adapter.dropout=0.3"):
        one, other = config("gpt2"), config("gpt2", word)
        assert identity(one.model) == identity(other.model)
        assert identity(one.stages.dpo) != identity(other.stages.dpo)
        whole, same = config("gpt2", "stages.dpo.lora=false"), config("gpt2", "stages.dpo.lora=false", word)
        assert identity(whole.stages.dpo) == identity(same.stages.dpo)


# -------------------------------------------------------------------------------------------------------- the export


def ran(folder: Path, config: Any, role: str, stage: Path) -> Path:
    """The folder of a run whose result is that stage, its store beside it."""
    store = folder / "outputs/stages" / role / "abc"
    shutil.copytree(stage, store)
    section = {"id": None, "revision": None, "path": "the hash of a folder"}
    (store / "record.json").write_text(json.dumps({"stage": role, "sections": {"model": section}}))
    whole = dataclasses.asdict(config) | {"method": {"result": role}}
    whole["runtime"]["outputs"] = str(folder / "outputs")
    (folder / "run.json").write_text(
        json.dumps({"config": whole, "stages": {role: "abc"}, "inputs": {"policy": role}, "status": "finished"})
    )
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_policy_is_read_by_transformers_and_peft(
    name: str, config: Any, run: Stage, tmp_path: Path
) -> None:
    made = config(name)
    made.dataset.stop = ["\n\nHuman:"]
    folder = ran(tmp_path, made, "sft", run(sft, made))
    expected = logprobs(load_policy(made.model, tmp_path / "outputs/stages/sft/abc"))
    for flags in (["--merge"], []):
        target = tmp_path / f"exported{len(flags)}"
        assert dispatch(["export", str(folder), str(target), *flags]) == 0
        read = AutoPeftModelForCausalLM if not flags else AutoModelForCausalLM
        assert torch.allclose(logprobs(read.from_pretrained(target)), expected, atol=1e-5)
        assert AutoTokenizer.from_pretrained(target).eos_token_id is not None
        assert not (target / "record.json").exists()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "exported1")
    assert merged.generation_config.stop_strings == ["\n\nHuman:"]


def test_what_cannot_be_exported_is_one_line(config: Any, run: Stage, tmp_path: Path) -> None:
    made = config("gpt2", "stages.sft.lora=false")
    policy = run(sft, made)
    result = run(dpo, made, policy=policy, reference=run(reference_logps, made, policy=policy))
    folder = ran(tmp_path, made, "dpo", result)
    for words, message in (
        ([folder, tmp_path / "new"], "add --merge"),
        ([tmp_path / "outputs/stages/dpo/abc", tmp_path / "new"], "add --merge"),
        ([policy, tmp_path / "new"], "holds no run.json"),
        ([folder, policy], "exists already"),
        ([folder], "export: needs DIR"),
    ):
        with pytest.raises(UserError, match=message):
            dispatch(["export", *map(str, words)])
    assert not (tmp_path / "new").exists()


def test_a_stage_is_exported_like_its_run(config: Any, run: Stage, tmp_path: Path) -> None:
    """Whole weights, and nothing that only we read; a stage's adapters on a local model need the run, which knows
    where that lies; a stage without a policy has nothing to give."""
    made = config("gpt2", "stages.sft.lora=false")
    stage = ran(tmp_path, made, "sft", run(sft, made)) / "outputs/stages/sft/abc"
    (stage / "value_head.safetensors").touch()
    for folder in ("critic", "steps"):
        (stage / folder).mkdir()
    assert dispatch(["export", str(stage), str(tmp_path / "mine")]) == 0
    exported, ours = AutoModelForCausalLM.from_pretrained(tmp_path / "mine"), load_policy(made.model, stage)
    torch.testing.assert_close(dict(exported.state_dict()), dict(ours.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(logprobs(exported), logprobs(ours))  # our attention adds in another order
    left = {path.name for path in (tmp_path / "mine").iterdir()}
    names = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    assert left == set(names)
    adapted = run(sft, config("gpt2"), "adapted")
    record = json.loads((stage / "record.json").read_text())
    for content, message in (
        (record, "name the folder of the run"),
        (record | {"stage": "reward_model"}, "leaves no policy"),
    ):
        (adapted / "record.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            dispatch(["export", str(adapted), str(tmp_path / "refused")])
    assert not (tmp_path / "refused").exists()
