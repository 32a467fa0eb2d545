"""Gradients that the vocabulary's weights add in place, against autograd's own."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from prefsweep.models.direct_gradients import DirectEmbedding, DirectHead, use_direct_gradients
from prefsweep.models.loading import autocast
from test_shared_prefix import build

IDS = torch.tensor([[5, 6, 7, 8, 9, 1], [10, 6, 12, 1, 1, 1]])
CPU = torch.device("cpu")


def gradients(model: Any, precision: str, parts: int = 1) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with autocast(precision, CPU):
        for ids in IDS.chunk(parts):
            logits = model(ids).logits
            (logits.float().log_softmax(-1) * torch.linspace(-1, 1, logits.shape[-1])).sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("kind", ["gpt2", "opt", "gpt_neox"])  # opt has a padding token; gpt_neox's head is its own
def test_they_are_autograds(kind: str, parts: int, precision: str) -> None:
    expected = gradients(build(kind), precision, parts)
    model = build(kind)
    use_direct_gradients(model)
    for _ in range(2):  # again into the memory of the first time
        ours = gradients(model, precision, parts)
        assert ours.keys() == expected.keys()
        for name, gradient in ours.items():
            limit = float(expected[name].abs().max()) * (1e-5 if precision == "fp32" else 2e-2)
            torch.testing.assert_close(gradient, expected[name], atol=limit, rtol=0, msg=name)


def test_the_head_multiplies_by_the_weight_as_it_is_now(model_folders: dict[str, Path]) -> None:
    """The copy in bf16 follows an optimiser's step, a state that is loaded, and inference mode before a training."""
    model = AutoModelForCausalLM.from_pretrained(model_folders["gpt2"], dtype=torch.float32).eval()
    plain = copy.deepcopy(model)
    use_direct_gradients(model)

    def is_same() -> bool:
        with autocast("bf16", CPU):
            return torch.equal(model(IDS).logits, plain(IDS).logits)

    with torch.inference_mode():
        assert is_same()
    assert gradients(model, "bf16")["transformer.wte.weight"].abs().max() > 0
    for each in (model, plain):
        optimizer = torch.optim.AdamW([each.transformer.wte.weight], lr=0.1, fused=True)
        each.transformer.wte.weight.grad = torch.ones_like(each.transformer.wte.weight)
        optimizer.step()
    assert is_same()
    state = {name: weight * 2 for name, weight in plain.state_dict().items()}
    model.load_state_dict(state)
    assert not is_same()
    plain.load_state_dict(state)
    assert is_same()


def test_a_copy_of_the_model_has_gradients_of_its_own(model_folders: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folders["gpt2"], dtype=torch.float32)
    use_direct_gradients(model)
    gradients(model, "bf16")
    other = copy.deepcopy(model)
    before = model.transformer.wte.weight.grad.clone()
    other.zero_grad()
    other(IDS * 2).logits.sum().backward()
    assert torch.equal(model.transformer.wte.weight.grad, before)
    assert not torch.equal(other.transformer.wte.weight.grad, before)


def test_frozen_weights_have_none(model_folders: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folders["gpt2"], dtype=torch.float32)
    model.add_adapter(LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    use_direct_gradients(model)
    assert isinstance(model.get_input_embeddings(), DirectEmbedding)
    assert isinstance(model.get_output_embeddings(), DirectHead)
    assert all("lora" in name for name in gradients(model, "fp32"))
