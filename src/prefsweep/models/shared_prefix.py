"""One forward over prompt, chosen and rejected, in place of two that read the prompt twice.

A pair becomes [prefix, rest of chosen, rest of rejected], its prefix being what both sequences begin with. Each token
has the position that it has in its own sequence, and attends to that sequence alone: the rejected completion never sees
the chosen one. So log-probabilities and gradients are those of separate forwards. Several pairs share a row, so that
little of a batch is padding; on a CPU all of them share one (`padding_free.py`).

The last token of the prefix is in both branches, because it predicts two tokens: so every cell has one target.
"""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from prefsweep.data.views import IGNORED
from prefsweep.models.learned_head import replace_fused_head
from prefsweep.models.padding_free import flat_layer_masks, is_flat, layer_masks, why_not

LOG = logging.getLogger(__name__)
SHARED = 0  # the branch of a prefix; those of chosen and rejected are 1 and 2


@dataclass(frozen=True)
class PackedPairs:
    """P pairs in R rows of W cells.

    ids, positions, pairs, branches: [R, W]; padding is of pair -1.
    cells: [2P, L], the flat index of the cell of each token of the batch that was packed.
    sizes: the cells of each pair, where one row holds them one behind the other.
    """

    ids: Tensor
    positions: Tensor
    pairs: Tensor
    branches: Tensor
    cells: Tensor
    sizes: list[int] | None

    def each_sees(self, window: int | None) -> list[Tensor]:
        """Return `sees` of every pair of a flat row."""
        assert self.sizes is not None
        columns = (x.split(self.sizes, 1) for x in (self.positions, self.pairs, self.branches))
        return [
            replace(self, positions=positions, pairs=pairs, branches=branches).sees(window)
            for positions, pairs, branches in zip(*columns, strict=True)
        ]

    def sees(self, window: int | None = None) -> Tensor:
        """Return [R, 1, W, W], true where a query (third axis) attends to a key: its own sequence up to itself.

        A sliding `window` is measured in positions. Padding attends to padding: a row without a key would be NaN.
        """
        pairs, branches, positions = (
            (x[:, :, None], x[:, None, :]) for x in (self.pairs, self.branches, self.positions)
        )
        distance = positions[0] - positions[1]
        mask = (pairs[0] == pairs[1]) & ((branches[1] == SHARED) | (branches[0] == branches[1])) & (distance >= 0)
        return (mask if window is None else mask & (distance < window))[:, None]

    def gather(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return values [R, W] of the cells as [2P, L - 1], the layout of the shifted labels; 0 outside the mask."""
        return values.flatten()[self.cells[:, :-1]].masked_fill(~mask, 0)


def pack(ids: Tensor, attention: Tensor, model: Any = None) -> PackedPairs:
    """Pack ids [2P, L], padded on the right: rows i and P + i are the chosen and rejected sequence of pair i.

    They are packed in one row where the `model` is faster so.
    """
    pairs, columns = len(ids) // 2, torch.arange(ids.shape[1], device=ids.device)
    real = attention.bool()
    chosen, rejected = ids.chunk(2)
    common = ((chosen == rejected) & real[:pairs] & real[pairs:]).cumprod(-1).sum(-1)
    prefix = (common - 1).clamp(min=0)
    lengths = real.sum(-1)
    sizes: list[int] = (lengths[:pairs] + lengths[pairs:] - prefix).tolist()
    starts, rows, width = *first_fit(sizes, max(sizes)), max(sizes)
    if flat := model is not None and is_flat(model, rows * width, sizes):
        starts, rows, width = [0, *accumulate(sizes[:-1])], 1, sum(sizes)
    start = torch.tensor(starts, device=ids.device)
    in_branch = columns >= prefix.repeat(2)[:, None]
    # A rejected token after the prefix is behind the chosen sequence: at start + length of chosen + column - prefix.
    behind = torch.cat([torch.zeros_like(prefix), lengths[:pairs] - prefix])
    cells = start.repeat(2)[:, None] + columns + in_branch * behind[:, None]
    side = torch.arange(2 * pairs, device=ids.device)[:, None] // pairs + 1

    def fill(values: Tensor, padding: int) -> Tensor:
        flat = torch.full((rows * width,), padding, dtype=torch.long, device=ids.device)
        flat[cells[real]] = values.expand_as(ids)[real]
        return flat.view(rows, width)

    return PackedPairs(
        ids=fill(ids, 0),
        positions=fill(columns, 0),
        pairs=fill(torch.arange(pairs, device=ids.device).repeat(2)[:, None], -1),
        branches=fill(in_branch * side, SHARED),
        cells=cells.where(real, 0),
        sizes=sizes if flat else None,
    )


def first_fit(sizes: list[int], width: int) -> tuple[list[int], int]:
    """Return the flat index at which each pair starts in rows of `width`, longest first, and the number of rows."""
    ends, starts = list[int](), [0] * len(sizes)
    for pair in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        row = next((row for row, end in enumerate(ends) if end + sizes[pair] <= width), len(ends))
        ends += [0] * (row == len(ends))
        starts[pair] = row * width + ends[row]
        ends[row] += sizes[pair]
    return starts, len(ends)


def attention_masks(packed: PackedPairs, model: Any) -> Any:
    """Return the mask that the model's layers read, or a dict of them where its layers are of several types."""
    if packed.sizes is not None:
        return flat_layer_masks(model, packed.sizes, packed.each_sees)

    def mask(window: int | None) -> Tensor:
        sees = packed.sees(window)
        if model.config._attn_implementation == "sdpa":
            return sees
        return torch.zeros_like(sees, dtype=model.dtype).masked_fill(~sees, torch.finfo(model.dtype).min)

    return layer_masks(model, mask)


@functools.cache
def warn(reason: str) -> None:
    LOG.warning("prompts are read once for each completion: sharing them is %s", reason)


def share_prefixes(model: Any) -> None:
    """Pack the pairs of `model(..., fused_lm_head=True)`; leave every other call as it is.

    The batch is that of TRL's DPOTrainer, chosen sequences over rejected ones, and so is the layout of what comes back.
    """
    model = getattr(model, "get_base_model", lambda: model)()
    if reason := why_not(model):
        return warn(reason)
    before = model.forward

    @functools.wraps(type(model).forward)
    def forward(*args: Any, fused_lm_head: bool = False, **rest: Any) -> Any:
        if not fused_lm_head:
            return before(*args, **rest)
        labels = rest.pop("labels")[:, 1:]
        packed = pack(rest.pop("input_ids"), rest.pop("attention_mask"), model)
        mask = labels != IGNORED
        targets = torch.full_like(packed.ids, IGNORED)
        targets.view(-1)[packed.cells[:, :-1][mask]] = labels[mask]
        output = before(
            input_ids=packed.ids,
            position_ids=packed.positions,
            attention_mask=attention_masks(packed, model),
            shift_labels=targets,
            fused_lm_head=True,
            **rest,
        )
        fields = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
        values = {name: getattr(output, name) for name in fields}
        values = {name: None if value is None else packed.gather(value, mask) for name, value in values.items()}
        loss = -values["log_probs"].sum() / mask.sum().clamp(min=1)
        return FusedCausalLMOutput(loss=loss, label_mask=mask, aux_loss=output.aux_loss, **values)

    model.forward = forward


@contextmanager
def pair_head(model: Any) -> Iterator[None]:
    """Let the model compute `model(..., labels=labels, fused_lm_head=True)` of pairs inside the `with` block."""
    add_fused_lm_head(model)
    replace_fused_head(model)
    share_prefixes(model)
    try:
        yield
    finally:
        del model.forward  # of the instance, which hid that of its class
