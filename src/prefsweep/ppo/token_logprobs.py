"""Log-probabilities and entropies of drawn tokens, from their logits, a piece of the tokens at a time.

Beside a small trunk the vocabulary is most of the work. In pieces that stay in a cache, logits in bf16 are never all in
fp32, and neither are their softmax and its gradient; the sums are in fp32.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from prefsweep.models.logprobs import CompletionBatch

PIECE = {"cpu": 2**18, "cuda": 2**26}  # logits in one piece: of a core's cache, and of a GPU's memory


def token_logprobs(logits: Tensor, batch: CompletionBatch, temperature: float) -> Tensor:
    """Return log π(y_t) [B, A] of the tokens that the mask selects, 0 elsewhere, from their logits [N, V]."""
    tokens = batch.completions[batch.completion_mask]
    return scattered(TokenLogprobs.apply(logits, tokens, temperature), batch)


@torch.no_grad()
def entropies(logits: Tensor, batch: CompletionBatch, temperature: float) -> Tensor:
    """Return −Σ_v π(v) log π(v) [B, A] where the mask is, 0 elsewhere, from logits [N, V]."""
    values = list[Tensor]()
    for piece in pieces(logits):
        logs = (piece.float() / temperature).log_softmax(-1)
        values.append(-(logs.exp() * logs).sum(-1))
    return scattered(torch.cat(values), batch)


def scattered(values: Tensor, batch: CompletionBatch) -> Tensor:
    """Return the values [N] of selected tokens at their places [B, A], 0 elsewhere."""
    return values.new_zeros(batch.completion_mask.shape).masked_scatter(batch.completion_mask, values)


def pieces(logits: Tensor) -> Iterator[Tensor]:
    return iter(logits.split(max(1, PIECE.get(logits.device.type, 2**26) // logits.shape[-1])))


class TokenLogprobs(torch.autograd.Function):
    """log_softmax(logits / temperature) at `tokens`: [N, V], [N] → [N] in fp32."""

    @staticmethod
    def forward(context: Any, logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
        sums = torch.cat([(piece.float() / temperature).logsumexp(-1) for piece in pieces(logits)])
        context.save_for_backward(logits, tokens, sums)
        context.temperature = temperature
        chosen = logits.gather(-1, tokens[:, None]).squeeze(-1).float() / temperature
        return chosen - sums

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """∂ log π(y) / ∂ logits = (1[v = y] − π(v)) / temperature."""
        logits, tokens, sums = context.saved_tensors
        scale = gradients[0] / context.temperature
        gradient = torch.empty_like(logits)
        first = 0
        for piece in pieces(logits):
            rows = slice(first, first + len(piece))
            part = (piece.float() / context.temperature).sub_(sums[rows, None]).exp_().mul_(-scale[rows, None])
            part.scatter_add_(-1, tokens[rows, None], scale[rows, None])
            gradient[rows] = part
            first += len(piece)
        return gradient, None, None
