"""LoRA: what is trained, what is left, what the next stage stands on, and that it is the same model again."""

import dataclasses
import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from killing import die_at
from ppo_toy import TARGETS, make_task, make_trainer, tiny
from prefsweep.__main__ import dispatch
from prefsweep.config import AdapterConfig, PPOConfig
from prefsweep.errors import UserError
from prefsweep.models import adapters
from prefsweep.models.loading import load_learner, load_policy
from prefsweep.models.logprobs import answer_batch, answer_logprobs
from prefsweep.pipeline.fingerprint import canonical
from prefsweep.pipeline.stage import Context
from prefsweep.stages import callbacks, dpo, ppo, reference, sft

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
    batch = answer_batch([[5, 6, 7], [8, 9]], [[20, 21, 0], [22, 23, 24, 0]], 0, torch.device("cpu"))
    with torch.no_grad():
        return answer_logprobs(model.eval(), batch)


# -------------------------------------------------------------------------------------- what is left, and read again


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lora", [True, False])
def test_a_policy_that_is_loaded_back_says_what_it_said(
    lora: bool, name: str, config: Any, run: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[torch.Tensor] = []
    save = callbacks.save

    def watched(model: Any, tokenizer: Any, folder: Path) -> None:
        said.append(logprobs(model))
        save(model, tokenizer, folder)

    monkeypatch.setattr("prefsweep.stages.training.save", watched)
    made = config(name, f"model.lora={str(lora).lower()}")
    folder = run(sft, made)
    assert (said[-1] - logprobs(load_policy(made.model, None))).abs().max() > 0.01, "nothing was learned"
    assert torch.allclose(said[-1], logprobs(load_policy(made.model, folder)), atol=1e-5)
    assert adapters.is_adapted(folder) == lora


def test_adapters_are_left_alone_and_small(config: Any, run: Stage) -> None:
    folder = run(sft, config("gpt2"))
    (left,) = folder.rglob("*.safetensors")
    assert left.relative_to(folder).as_posix() == "adapters/00/adapter_model.safetensors"
    assert all("lora_" in name for name in load_file(left))


@pytest.mark.parametrize("first", ["full", "lora"])
@pytest.mark.parametrize("name", NAMES)
def test_after_an_sft_the_reference_is_the_sft_model(
    name: str, first: str, config: Any, run: Stage, new_context: Any
) -> None:
    made = config(name, f"stages.sft.lora={str(first == 'lora').lower()}")
    policy = run(sft, made)
    logps = run(reference, made, policy=policy)
    context = new_context("dpo", log_every=1)
    result = run(dpo, made, context=context, policy=policy, reference=logps)
    assert next(context.history.rows())["loss"] == pytest.approx(math.log(2), abs=1e-6)
    start, end = (logprobs(load_policy(made.model, folder)) for folder in (policy, result))
    assert (start - end).abs().max() > 0.01
    # whole without the folder of the stage before it
    for file in sorted(policy.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    assert torch.equal(logprobs(load_policy(made.model, result)), end)


def test_weights_that_a_run_made_are_linked_and_not_written_twice(config: Any, run: Stage) -> None:
    made = config("gpt2", "stages.sft.lora=false")
    policy = run(sft, made)
    result = run(dpo, made, policy=policy, reference=run(reference, made, policy=policy))
    assert (result / "base/model.safetensors").samefile(policy / "model.safetensors")


# ------------------------------------------------------------------------------------------------------------ training


def test_a_killed_training_of_adapters_ends_as_an_undisturbed_one(
    config: Any, run: Stage, new_context: Any, tmp_path: Path
) -> None:
    made = config("gpt2", "model.adapter.dropout=0.1", "stages.sft.evaluate_every=2", "stages.sft.checkpoint=best")

    def work(name: str) -> Path:
        return run(sft, made, name, new_context(name, log_every=1, save_every=2))

    assert die_at(3, lambda: work("killed")) == -signal.SIGKILL
    found = [load_file(work(name) / "adapters/00/adapter_model.safetensors") for name in ("killed", "undisturbed")]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[1])


def test_gradient_checkpointing_changes_nothing(config: Any, run: Stage, new_context: Any) -> None:
    found = [
        load_file(
            run(sft, config("opt"), f"checkpointing-{on}", new_context(f"work-{on}", gradient_checkpointing=on))
            / "adapters/00/adapter_model.safetensors"
        )
        for on in (True, False)
    ]
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[1])


def test_ppo_moves_the_adapters_alone_and_its_reference_stays(ppo_config: Callable[..., PPOConfig]) -> None:
    before = tiny("gpt2")
    policy = adapters.with_adapters(tiny("gpt2"), AdapterConfig(2, 4, 0.0, TARGETS["gpt2"]), None, seed=1)
    made = make_trainer(ppo_config(), replace(make_task(), policy=policy, reference=policy))
    for _ in range(2):
        metrics, _ = made.iterate()
    assert metrics["kl"] > 0.01
    with adapters.adapters_off(policy):
        assert torch.equal(logprobs_of_words(policy), logprobs_of_words(before))
    assert not torch.equal(logprobs_of_words(policy), logprobs_of_words(before))
    again = adapters.with_adapters(tiny("gpt2"), AdapterConfig(2, 4, 0.0, TARGETS["gpt2"]), None, seed=1)
    other = make_trainer(ppo_config(), replace(make_task(), policy=again, reference=again))
    other.restore(made.state())
    assert torch.equal(logprobs_of_words(again), logprobs_of_words(policy))


def logprobs_of_words(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[2, 3, 4, 5]])).logits


def test_dropout_of_adapters_is_off_in_ppo(config: Any, tokenizer: Any) -> None:
    made = config("gpt2", "model.adapter.dropout=0.5", "stages.ppo.max_length=96")
    task = ppo.make_task(made.stages.ppo, made.model, None, None, tokenizer, len, [], torch.device("cpu"))
    assert task.reference is task.policy
    assert not any(isinstance(module, torch.nn.Dropout) and module.p for module in task.policy.modules())


# ------------------------------------------------------------------------------------------------------------- mistakes


def test_a_target_that_the_architecture_lacks_is_one_line(config: Any) -> None:
    made = config("opt", "model.adapter.targets=[c_attn]")
    with pytest.raises(UserError, match=r"^model.adapter.targets: opt has no c_attn.*there are: .*q_proj"):
        load_learner(made.stages.sft, made.model, None)


def test_the_rank_is_in_the_identity_of_what_trains_adapters_alone(config: Any) -> None:
    def identity(section: Any) -> Any:
        return canonical(section, lambda path: "content")

    for word in ("model.adapter.r=4", "model.adapter.dropout=0.3"):
        one, other = config("gpt2"), config("gpt2", word)
        assert identity(one.model) == identity(other.model)
        assert identity(one.stages.dpo) != identity(other.stages.dpo)
        whole, same = config("gpt2", "stages.dpo.lora=false"), config("gpt2", "stages.dpo.lora=false", word)
        assert identity(whole.stages.dpo) == identity(same.stages.dpo)
        assert "lora" not in identity(whole.stages.dpo)


# -------------------------------------------------------------------------------------------------------- the export


def ran(folder: Path, config: Any, role: str, stage: Path) -> Path:
    """The folder of a run whose result is that stage, its store beside it."""
    store = folder / "outputs/stages" / role / "abc"
    shutil.copytree(stage, store)
    (store / "record.json").write_text("{}")
    whole = dataclasses.asdict(config) | {"method": {"result": role}}
    whole["runtime"]["outputs"] = str(folder / "outputs")
    (folder / "run.json").write_text(json.dumps({"config": whole, "stages": {role: "abc"}, "status": "finished"}))
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_policy_is_read_by_transformers_and_peft(
    name: str, config: Any, run: Stage, tmp_path: Path
) -> None:
    made = config(name)
    folder = ran(tmp_path, made, "sft", run(sft, made))
    expected = logprobs(load_policy(made.model, tmp_path / "outputs/stages/sft/abc"))
    for flags in (["--merge"], []):
        target = tmp_path / f"exported{len(flags)}"
        assert dispatch(["export", str(folder), str(target), *flags]) == 0
        read = AutoPeftModelForCausalLM if not flags else AutoModelForCausalLM
        assert torch.allclose(logprobs(read.from_pretrained(target)), expected, atol=1e-5)
        assert AutoTokenizer.from_pretrained(target).eos_token_id is not None
        assert not (target / "record.json").exists()


def test_what_cannot_be_exported_is_one_line(config: Any, run: Stage, tmp_path: Path) -> None:
    made = config("gpt2", "stages.sft.lora=false")
    policy = run(sft, made)
    result = run(dpo, made, policy=policy, reference=run(reference, made, policy=policy))
    folder = ran(tmp_path, made, "dpo", result)
    for words, said in (
        ([folder, tmp_path / "new"], "say --merge"),
        ([policy, tmp_path / "new"], "holds no run.json"),
        ([folder, policy], "is there already"),
        ([folder], "needs the folder of a run and a new one"),
    ):
        with pytest.raises(UserError, match=said):
            dispatch(["export", *map(str, words)])
    assert not (tmp_path / "new").exists()
