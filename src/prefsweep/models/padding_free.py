"""Sequences one behind the other in a single row without padding, each attending to itself alone, on a CPU.

A processor computes every cell of a batch, padding too. In one row there is none: the linear layers read real tokens
alone, and attention is computed a sequence at a time at its own length. A GPU keeps rows, since it would launch a
kernel for each sequence of each layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Architectures that a test holds to separate forwards. Others place tokens by their column (ALiBi, GPT-Neo's local
# attention) or carry a state from column to column, so that no mask separates the sequences.
EXACT = (
    *("gpt2", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    *("gpt_neox", "granite", "cohere", "cohere2", "olmo2", "phi3", "smollm3"),
)
LAYERS = ("full_attention", "sliding_attention")
ATTENTION = ("sdpa", "eager")  # implementations that take a mask of their caller
# An attention call of its own for each sequence and layer takes as long as the linear layers of so many cells, times
# the squared width of the model.
CALL = 2**20

Masks = Callable[[int | None], Sequence[Tensor | None]]  # sliding window → the mask of each sequence; None is causal


@dataclass(frozen=True)
class FlatBatch:
    """N tokens of B sequences in one row.

    ids, positions: [1, N]; lengths: B numbers that sum to N.
    cells: [B, L], the flat index of the cell of each token of the batch that was flattened; 0 for padding.
    """

    ids: Tensor
    positions: Tensor
    lengths: list[int]
    cells: Tensor

    def inputs(self, model: Any) -> dict[str, Any]:
        """Return what a model of which `is_flat` reads it by."""

        def masks(window: int | None) -> list[Tensor | None]:
            return [None if window is None or length <= window else banded(length, window) for length in self.lengths]

        mask = flat_layer_masks(model, self.lengths, masks)
        return {"input_ids": self.ids, "position_ids": self.positions, "attention_mask": mask}


def flatten(ids: Tensor, attention: Tensor) -> FlatBatch:
    """Return the batch ids [B, L] without the cells that its attention mask [B, L] hides."""
    real = attention.bool()
    cells = real.flatten().cumsum(0).view_as(ids) - 1
    positions = attention.cumsum(-1) - 1
    return FlatBatch(ids[real][None], positions[real][None], real.sum(-1).tolist(), cells.where(real, 0))


def banded(length: int, window: int) -> Tensor:
    """Return the causal mask [1, 1, L, L] of a sliding window."""
    ones = torch.ones(1, 1, length, length, dtype=torch.bool)
    return ones.tril() & ~ones.tril(-window)


def flat_mask(lengths: list[int], masks: Sequence[Tensor | None]) -> Tensor:
    """Return what the models pass on as an attention mask: `attention` reads the sequences that it carries.

    It is a cell longer than the row, so that an attention that does not know it fails.
    """
    mask = torch.zeros(1, 1, 1, sum(lengths) + 1, dtype=torch.bool)
    mask.sequences = lengths, masks  # type: ignore[attr-defined]
    return mask


def layer_masks(model: Any, mask: Callable[[int | None], Tensor]) -> Any:
    """Return the mask that the model's layers read, or a dict of them where its layers are of several types."""
    window = getattr(model.config, "sliding_window", None)
    if types := getattr(model.config, "layer_types", None):
        return {kind: mask(window if kind == "sliding_attention" else None) for kind in set(types)}
    return mask(window)


def flat_layer_masks(model: Any, lengths: list[int], masks: Masks) -> Any:
    """Return the same for a flat row."""
    return layer_masks(model, lambda window: flat_mask(lengths, masks(window)))


def is_flat(model: Any, cells: int, lengths: list[int]) -> bool:
    """Whether sequences of these lengths are computed faster in one row than in a batch of so many cells."""
    model = getattr(model, "get_base_model", lambda: model)()  # without adapters around it
    config = model.config
    if model.device.type != "cpu" or config._attn_implementation != "sdpa" or why_not(model):
        return False
    return bool((cells - sum(lengths)) * config.hidden_size**2 > len(lengths) * CALL)


def why_not(model: Any) -> str | None:
    """Return why sequences may not share a row of this model, or None."""
    kind, implementation = model.config.model_type, model.config._attn_implementation
    if kind not in EXACT:
        return f"not known to be exact for {kind}"
    if implementation not in ATTENTION:
        return f"attention {implementation} takes no mask"
    if other := set(getattr(model.config, "layer_types", None) or ()) - set(LAYERS):
        return f"{kind} has layers of {', '.join(sorted(other))}"
    return None
