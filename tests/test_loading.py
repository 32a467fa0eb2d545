"""Weights from folders and caches: fp32 whatever they were saved in, nothing executed, nothing random in silence."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.activations import ACT2FN

from architectures import save_classifier
from prefsweep import hub
from prefsweep.config.schema import HubScorerConfig, ModelConfig
from prefsweep.errors import UserError
from prefsweep.hub import Repository, check_models, pinned, repository
from prefsweep.jobs.job import prepare, repositories
from prefsweep.models.loading import load_policy, load_tokenizer
from prefsweep.models.scorers import load_scorer
from workplace import Workplace

CPU = torch.device("cpu")


class Trap:
    """Pickled, it would make a file where it is opened."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.fixture
def policy(composed: Callable[..., Any]) -> Callable[[Path], Any]:
    def load(folder: Path) -> Any:
        return load_policy(composed("model=opt-350m", f"model.path={folder}").model, None)

    return load


@pytest.fixture
def scorer(composed: Callable[..., Any]) -> Callable[[Path], Any]:
    def load(folder: Path) -> Any:
        return load_scorer(composed("scorer@judge=distilbert-imdb", f"judge.path={folder}").judge, CPU)

    return load


def as_bin(folder: Path, to: Path, content: Any = None) -> Path:
    """The same model with a pytorch_model.bin in place of its safetensors."""
    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    (to / "model.safetensors").unlink()
    torch.save(content or weights, to / "pytorch_model.bin")
    return to


def half(folder: Path, to: Path) -> Path:
    """As opt-350m is published: every tensor fp16, in a .bin."""
    AutoModelForCausalLM.from_pretrained(folder).half().save_pretrained(to / "saved")
    load_tokenizer(ModelConfig(path=str(folder)), None).save_pretrained(to / "saved")
    return as_bin(to / "saved", to / "half")


def test_fp16_weights_are_read_as_fp32(
    policy: Callable[[Path], Any], model_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = half(model_folders["opt"], tmp_path)
    assert {weight.dtype for weight in torch.load(folder / "pytorch_model.bin").values()} == {torch.float16}
    assert {weight.dtype for weight in policy(folder).parameters()} == {torch.float32}


@pytest.mark.slow
def test_an_fp16_opt_trains_in_fp32(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """Through every training stage; with its narrow embeddings and its norms after the blocks."""
    folder = half(model_folders["opt"], tmp_path)
    workplace = Workplace(tmp_path)
    overrides = ("model=opt-350m", f"model.path={folder}", "model.from_scratch=false", "tracking=off", "sweep=opt")
    assert workplace.run("-m", *overrides, "method=sft+dpo,ppo").returncode == 0
    for stage in ("sft", "dpo", "ppo", "reward_model"):
        (built,) = workplace.stages(stage)
        assert {weight.dtype for weight in load_file(built / "model.safetensors").values()} == {torch.float32}
        rows = [json.loads(line) for line in (built / "history.jsonl").read_text().splitlines()]
        assert rows and "NaN" not in (built / "history.jsonl").read_text()


def test_a_bin_of_weights_is_the_same_model(
    policy: Callable[[Path], Any],
    scorer: Callable[[Path], Any],
    model_folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    plain, boxed = policy(model_folders["opt"]), policy(as_bin(model_folders["opt"], tmp_path / "opt"))
    assert all(torch.equal(*pair) for pair in zip(plain.parameters(), boxed.parameters(), strict=True))
    folder = save_classifier("bert", ("NEGATIVE", "POSITIVE"), tmp_path / "bert")
    texts = ["The plot"], [" was witty."]
    assert scorer(folder).score(*texts) == scorer(as_bin(folder, tmp_path / "boxed")).score(*texts)


def test_safetensors_are_taken_where_both_lie(
    policy: Callable[[Path], Any], model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Even the other is not opened: it holds no model."""
    folder = tmp_path / "both"
    shutil.copytree(model_folders["gpt2"], folder)
    (folder / "pytorch_model.bin").write_bytes(b"no weights at all")
    plain, loaded = policy(model_folders["gpt2"]), policy(folder)
    assert all(torch.equal(*pair) for pair in zip(plain.parameters(), loaded.parameters(), strict=True))


def test_a_bin_with_code_in_it_is_refused_unopened(
    policy: Callable[[Path], Any],
    scorer: Callable[[Path], Any],
    model_folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    sprung = tmp_path / "sprung"
    bert = save_classifier("bert", ("NEGATIVE", "POSITIVE"), tmp_path / "bert")
    for name, load, folder in (("opt", policy, model_folders["opt"]), ("bert", scorer, bert)):
        trapped = as_bin(folder, tmp_path / f"trapped-{name}", {"weight": Trap(sprung)})
        with pytest.raises(UserError, match="holds more than weights") as refused:
            load(trapped)
        assert "\n" not in str(refused.value)
        (trapped / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(sprung)))  # as torch saved before 1.6
        with pytest.raises(UserError):
            load(trapped)
    assert not sprung.exists()


def test_code_that_comes_with_a_model_is_not_run(
    policy: Callable[[Path], Any], scorer: Callable[[Path], Any], tmp_path: Path
) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "modeling_own.py").write_text(f"open({str(sprung)!r}, 'w')\n")
    names = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoTokenizer")
    own = {"model_type": "own", "auto_map": dict.fromkeys(names, "modeling_own.Own")}
    (tmp_path / "config.json").write_text(json.dumps(own))
    for load in (policy, scorer):
        with pytest.raises(UserError, match="code of its own, which is never run") as refused:
            load(tmp_path)
        assert "\n" not in str(refused.value)
    assert not sprung.exists()


def test_the_names_that_the_hub_has_for_weights_are_read(
    policy: Callable[[Path], Any], model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """GPT-2's and OPT's files begin inside the model, and leave out the head, which is the embeddings."""
    for name, prefix in (("gpt2", "transformer."), ("opt", "model.")):
        weights = load_file(model_folders[name] / "model.safetensors")
        inside = {key.removeprefix(prefix): value for key, value in weights.items() if key != "lm_head.weight"}
        assert inside.keys() != weights.keys()
        loaded = policy(as_bin(model_folders[name], tmp_path / name, inside))
        expected = policy(model_folders[name])
        assert all(torch.equal(*pair) for pair in zip(expected.parameters(), loaded.parameters(), strict=True))


def test_a_scorer_without_its_head_is_refused(scorer: Callable[[Path], Any], tmp_path: Path) -> None:
    """transformers would give it random weights, and score with them."""
    folder = save_classifier("bert", ("NEGATIVE", "POSITIVE"), tmp_path / "bert")
    bare = as_bin(
        folder,
        tmp_path / "bare",
        {key: value for key, value in load_file(folder / "model.safetensors").items() if "classifier" not in key},
    )
    with pytest.raises(UserError, match=r"lacks classifier\.bias and 1 more"):
        scorer(bare)


# ------------------------------------------------------------------------------------------------ the hub, out of reach

UNREACHABLE = [
    (("model=gpt2",), "openai-community/gpt2", "model.path"),
    (("model=opt-350m",), "facebook/opt-350m", "model.path"),
    (("scorer@judge=deberta-v3",), "OpenAssistant/reward-model-deberta-v3-large-v2", "judge.path"),
    (("method=ppo", "scorer@reward=distilbert-imdb"), "lvwerra/distilbert-imdb", "reward.path"),
    (
        ("method=ppo", "stages.reward_model.backbone=encoder", "stages.reward_model.reads=[dataset]"),
        "google-bert/bert-base-uncased",
        "stages.reward_model.encoder.path",
    ),
]


@pytest.mark.parametrize(("words", "id", "key"), UNREACHABLE)
def test_what_cannot_be_had_is_said_before_anything_is_built(
    words: tuple[str, ...], id: str, key: str, composed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: False)
    words = words if words[0].startswith("method=") else ("method=sft+dpo", *words)
    job = prepare([*words], composed(*words))
    with pytest.raises(UserError) as refused:
        check_models(repositories(job.config, job.plan.stages).values())
    message = str(refused.value)
    assert message.startswith(f"{id}: ") and message.endswith(f" or set {key}=FOLDER")
    assert f"hf download {id} --revision " in message and "@" not in message


def test_a_run_without_network_ends_in_that_line(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    cache = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = workplace.command("model=gpt2", "method=dpo", "tracking=off", **cache)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "hf download openai-community/gpt2" in done.stderr
    assert not workplace.stages("generate") and not (tmp_path / "wandb").exists()


def test_a_model_of_the_cache_is_loaded_without_a_request(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """None for its adapters either, which transformers would look for on the hub."""
    commit = "0" * 40
    shutil.copytree(model_folders["gpt2"], tmp_path / f"hf/hub/models--someone--model/snapshots/{commit}")
    workplace = Workplace(tmp_path)
    options = f"'someone/model', {{'revision': '{commit}'}}"
    code = f"from prefsweep.models.loading import *; load_fp32(AutoModelForCausalLM, {options})"
    environment = {**os.environ, **workplace.environment, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not workplace.sockets.exists()


def test_a_commit_holds_for_its_own_repository_alone(composed: Callable[..., Any], tmp_path: Path) -> None:
    model = composed("model=gpt2").model
    assert pinned(model, tmp_path, False).revision == "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    another = composed("model=gpt2", "model.id=lvwerra/gpt2-imdb").model
    assert pinned(another, tmp_path, False).revision is None
    (tmp_path / hub.COMMITS).write_text(json.dumps({"models/lvwerra/gpt2-imdb": "abc"}))
    assert pinned(another, tmp_path, False).revision == "abc"
    at_revision = composed("model=gpt2", "model.id=lvwerra/gpt2-imdb", "model.revision=def").model
    assert pinned(at_revision, tmp_path, False).revision == "def"


def test_what_is_local_or_made_from_nothing_is_asked_of_nobody(
    composed: Callable[..., Any], model_folders: dict[str, Path]
) -> None:
    smoke = composed("model=gpt2", "debug=smoke", "scorer@judge=deberta-v3")
    assert isinstance(smoke.judge, HubScorerConfig)
    local = composed("model=gpt2", f"model.path={model_folders['gpt2']}").model
    assert [repository(section) for section in (smoke.model, smoke.judge, local)] == [None] * 3
    assert repository(composed("model=gpt2").model) == Repository(
        "openai-community/gpt2", composed("model=gpt2").model.revision, "model", "model.path"
    )


def test_a_shrunken_opt_350m_has_its_projection_and_its_norms_after_the_blocks(composed: Callable[..., Any]) -> None:
    model = composed("model=opt-350m", "debug=smoke").model
    assert model.architecture == model.small
    assert model.architecture.word_embed_proj_dim != model.architecture.hidden_size
    assert model.architecture.do_layer_norm_before is False


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_accurate"])
def test_a_spelled_out_gelu_is_computed_in_one_operation(
    name: str, policy: Callable[[Path], Any], model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """The logits are those of transformers, and what is saved names the activation that was loaded."""
    folder = shutil.copytree(model_folders["gpt2"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"activation_function": name}))
    model, ids = policy(folder), torch.arange(5, 25)[None]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(plain.transformer.h[0].mlp.act) is type(ACT2FN[name])
    assert type(model.transformer.h[0].mlp.act) is type(ACT2FN["gelu_pytorch_tanh"])
    torch.testing.assert_close(model.eval()(ids).logits, plain(ids).logits, atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/config.json").read_text())["activation_function"] == name
