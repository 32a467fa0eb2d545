"""Attention in fp32 over short rows: what training differentiates in bf16 on a CPU, against fp32's own numbers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from prefsweep.models.attention import LONGEST, attend_in_fp32, attention
from test_shared_prefix import build

MARKED: Any = SimpleNamespace(is_causal=True, training=True, attends_in_fp32=True)


def attended(how: Any, dtype: torch.dtype, length: int) -> list[torch.Tensor]:
    """Return the output and the gradients of query, key and value, in fp32."""
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(2, 3, length, 8, generator=generator).bfloat16().to(dtype).requires_grad_() for _ in range(3)]
    mask = torch.ones(2, 1, length, length, dtype=torch.bool).tril()
    mask[0, :, :, 0] = False
    mask[0, :, 0] = True
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        output, _ = how(MARKED, *states, mask)
    weights = torch.randn(output.shape, generator=generator)
    return [output.float(), *(gradient.float() for gradient in torch.autograd.grad((output * weights).sum(), states))]


@pytest.mark.parametrize("length", [5, 40])
def test_short_rows_in_bf16_are_attended_in_fp32(length: int) -> None:
    exact = attended(sdpa_attention_forward, torch.float32, length)
    errors = [
        [
            float((output - in_fp32).detach().abs().mean())
            for output, in_fp32 in zip(attended(how, torch.bfloat16, length), exact, strict=True)
        ]
        for how in (attention, sdpa_attention_forward)
    ]
    assert all(ours < theirs for ours, theirs in zip(*errors, strict=True))
    assert max(errors[0]) < 5e-3


def test_long_rows_and_fp32_are_left_to_transformers() -> None:
    for dtype, length in ((torch.bfloat16, LONGEST + 1), (torch.float32, 9)):
        for ours, theirs in zip(
            attended(attention, dtype, length), attended(sdpa_attention_forward, dtype, length), strict=True
        ):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_layers_of_a_marked_model_read_it(name: str) -> None:
    """Those of Llama too, whose rotated queries and keys are fp32 until autocast casts them."""
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attention
    marked, unmarked = build(name, "sdpa"), build(name, "sdpa")
    attend_in_fp32(marked)
    batch = torch.arange(12)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = [model(batch, attention_mask=torch.ones_like(batch)).logits for model in (marked, unmarked)]
        with torch.inference_mode():
            assert torch.equal(marked(batch).logits, unmarked(batch).logits)
    assert not torch.equal(*logits)
