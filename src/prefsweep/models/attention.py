"""Attention on a CPU: a sequence at a time in a row without padding, and short ones in fp32.

torch's kernel for bf16 on a CPU takes 20 ms to differentiate 16 rows of 32 tokens, 12 heads of 64, and the one for fp32
takes 3.5 ms, casts included. For one row of 200 they take 6.8 and 3.2 ms, for one of 400 14 and 12.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

LONGEST = 384  # tokens of a row


def attend_in_fp32(*models: nn.Module) -> None:
    """Let the attention of these models be in fp32 where that is faster.

    A mark on the layers, not a context: with gradient checkpointing a layer is computed again in the backward pass.
    """
    for model in models:
        for layer in model.modules():
            layer.attends_in_fp32 = True  # type: ignore[assignment]


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Do what `sdpa` of transformers does, a sequence at a time where the mask is that of a flat row."""
    if (sequences := getattr(attention_mask, "sequences", None)) is None:
        return attend(module, query, key, value, attention_mask, **options), None
    lengths, masks = sequences
    parts = zip(*(states.split(lengths, 2) for states in (query, key, value)), masks, strict=True)
    return torch.cat([attend(module, *part, **options) for part in parts], dim=1), None


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> Tensor:
    """Attend in fp32 in a layer so marked, on a CPU and over a short row.

    Inference mode, and so sampling, is left as it is: a forward pass alone is fast in bf16.
    """
    # rotated queries and keys, as of Llama, are fp32 until autocast casts them
    is_bf16 = query.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    is_slow = query.device.type == "cpu" and is_bf16 and key.shape[2] <= LONGEST
    if not is_slow or torch.is_inference_mode_enabled() or not hasattr(module, "attends_in_fp32"):
        attended: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return attended
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    with torch.autocast("cpu", enabled=False):
        attended = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **options)[
            0
        ]
    return attended.bfloat16()


ALL_ATTENTION_FUNCTIONS.register("sdpa", attention)
