"""The models of conf/model: pinned, and, as small ones of the same architecture, ready for adapters on every layer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from prefsweep.config.compose import compose, composing
from prefsweep.hub import commit_of
from prefsweep.models.adapters import with_adapters
from prefsweep.models.loading import init_from_scratch
from prefsweep.models.tokenizers import train_tokenizer

CONF = Path(__file__).parents[1] / "conf/model"
SHAPES = ("gpt2", "opt-350m", "smollm2-135m", "qwen3-0.6b", "gemma-3-270m", "pythia-160m")  # one of each architecture
HUB = sorted(file.stem for file in CONF.glob("*.yaml") if not file.stem.startswith("_") and file.stem != "gpt2-tiny")


def composed(*words: str) -> Any:
    with composing():
        return compose([*words, "tracking=off"])


@pytest.mark.parametrize("name", HUB)
def test_a_model_of_the_hub_is_pinned_to_a_commit_of_its_own(name: str) -> None:
    model = composed(f"model={name}").model
    assert model.name == name
    commit = commit_of(model.id, model.revision)
    assert commit and len(commit) == 40 and set(commit) <= set("0123456789abcdef")
    assert (CONF / f"{name}.yaml").read_text().splitlines()[1].startswith(f"# {name}: ")


def test_no_two_models_share_a_commit() -> None:
    revisions = [composed(f"model={name}").model.revision for name in HUB]
    assert len(set(revisions)) == len(HUB)


@pytest.mark.parametrize("name", SHAPES)
def test_every_linear_layer_but_the_head_gets_adapters(name: str) -> None:
    config = composed(
        f"model={name}", "debug=smoke", "method=sft", "model.lora=true", "model.adapter.targets=[all-linear]"
    )
    shape = config.model.architecture
    tokenizer = train_tokenizer([], shape.vocab_size, 64, shape.model_type)
    torch.manual_seed(0)
    model = init_from_scratch(shape, tokenizer)
    ids = torch.tensor([tokenizer("A film.")["input_ids"]])
    before = model(ids).logits
    linear = {name for name, part in model.base_model.named_modules() if isinstance(part, nn.Linear | Conv1D)}
    adapted = with_adapters(model, config.stages.sft.adapter, None, seed=1)
    assert torch.equal(adapted(ids).logits, before)
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    prefix = f"{adapted.base_model_prefix}."
    assert {name.partition(".lora_")[0].removeprefix(prefix) for name in trained} == linear
    assert len(trained) == 2 * len(linear)
