"""The parts of one effective batch: rows of like length that are computed together."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from prefsweep.models.padding_free import is_flat

Batch = dict[str, Tensor]
# What a part costs beside its tokens. On a CPU its gradients are added to those of the others; on a GPU the next part's
# kernels are launched one by one while a few thousand tokens could have been computed.
PART_TOKENS = {"cpu": 256, "cuda": 8192}
SEQUENCES = ("input_ids", "attention_mask", "completion_mask", "labels")  # the tensors of a batch that have columns


def parts_by_length(attention: Tensor, tokens: int, model: Any = None) -> list[list[int]]:
    """Return the rows [B] of each part of a batch, from its attention mask [B, L].

    Rows of like length share a part. None has more than `tokens`, padding included, unless it is one row; of such
    splits it is the one that takes least time, a part of its own counted as `PART_TOKENS` of padding. Where the `model`
    reads rows without padding, they are the fewest parts.
    """
    lengths, of_part = attention.sum(-1).tolist(), PART_TOKENS[attention.device.type]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if model is not None and is_flat(model, attention.numel(), lengths):
        return full_parts(order, lengths, tokens)
    best, starts = [0.0], list[int]()  # for the first n rows in order: their cost, and where their last part starts
    for end, last in enumerate(order, 1):
        first = range(max(0, end - max(1, tokens // lengths[last])), end)
        cost, start = min((best[start] + (end - start) * lengths[last] + of_part, start) for start in first)
        best.append(cost)
        starts.append(start)
    parts, end = list[list[int]](), len(order)
    while end:
        parts.append(sorted(order[starts[end - 1] : end]))
        end = starts[end - 1]
    return parts[::-1]


def full_parts(order: list[int], lengths: list[int], tokens: int) -> list[list[int]]:
    """Return rows in this order in parts of at most so many tokens."""
    parts, room = list[list[int]](), 0
    for row in order:
        if lengths[row] > room:
            parts.append([])
            room = tokens
        parts[-1].append(row)
        room -= lengths[row]
    return [sorted(part) for part in parts]


def pair_parts(inputs: Batch, split: Callable[[Tensor], list[list[int]]]) -> Iterator[tuple[Batch, float]]:
    """Split a batch by pairs: chosen is stacked on rejected, so row i and row pairs + i are one pair."""
    pairs = len(inputs["input_ids"]) // 2
    longer = torch.maximum(*inputs["attention_mask"].chunk(2))
    for rows in split(longer):
        both = rows + [pairs + row for row in rows]
        part = {name: value[both if name in SEQUENCES else rows] for name, value in inputs.items()}
        yield trimmed(part), len(rows) / pairs


def trimmed(batch: Batch) -> Batch:
    """Return the batch without the columns that are padding in all of its rows."""
    width = int(batch["attention_mask"].sum(-1).max())
    return {name: value[:, :width] if name in SEQUENCES else value for name, value in batch.items()}
