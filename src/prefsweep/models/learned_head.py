"""The vocabulary head at learned tokens alone, in place of the fused one that TRL's trainers patch into models.

TRL's is made for a GPU's kernel. On a CPU it scores every position, prompts and padding too, folds the softmax piece
by piece, and computes the logits again in the backward pass. Here a CPU computes the logits of the tokens that are
learned, once: the same numbers (1e-6) at a fraction of the time. Where they would be more than `PIECE`, they are
computed a piece of the tokens at a time, each again in the backward pass, so that memory stays bounded.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

from prefsweep.data.views import IGNORED
from prefsweep.models.padding_free import flatten, is_flat

PIECE = 2**27  # logits in memory at once: 512 MiB in fp32
BLOCK = 2**20  # logits that a CPU's cache holds
# What TRL's head reads of a config beside the weights; a model without them has logits that are the head's output.
SCALED = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


def replace_fused_head(model: Any) -> None:
    """Compute `model(..., fused_lm_head=True)` here if the model is on a CPU; leave every other call as it is."""
    model = getattr(model, "get_base_model", lambda: model)()  # inside its adapters, as TRL does
    if any(getattr(model.config, name, None) is not None for name in SCALED):
        return
    before = model.forward

    @functools.wraps(type(model).forward)
    def forward(
        *args: Any, fused_lm_head: bool = False, labels: Any = None, shift_labels: Any = None, **rest: Any
    ) -> Any:
        if not fused_lm_head or model.device.type != "cpu":
            return before(*args, fused_lm_head=fused_lm_head, labels=labels, shift_labels=shift_labels, **rest)
        rest["use_cache"] = False
        if shift_labels is not None:
            mask = shift_labels != IGNORED
            states = model.base_model(*args, **rest).last_hidden_state[mask]
        else:
            shift_labels = labels[:, 1:]
            mask = shift_labels != IGNORED
            states = states_before(model, mask, *args, **rest)
        return learned_output(states, model.get_output_embeddings(), shift_labels, mask)

    model.forward = forward


def states_before(model: Any, mask: Tensor, input_ids: Tensor, attention_mask: Any = None, **rest: Any) -> Tensor:
    """Return the hidden states [N, H] before the tokens that the mask [B, L - 1] selects from the second column on."""
    if attention_mask is None or not is_flat(model, input_ids.numel(), attention_mask.sum(-1).tolist()):
        states: Tensor = model.base_model(input_ids=input_ids, attention_mask=attention_mask, **rest).last_hidden_state
        return states[:, :-1][mask]
    flat = flatten(input_ids, attention_mask)
    states = model.base_model(**flat.inputs(model), **rest).last_hidden_state
    return states[0, flat.cells[:, :-1][mask]]


def learned_output(states: Tensor, head: Any, labels: Tensor, mask: Tensor) -> FusedCausalLMOutput:
    """Return statistics of the N `labels` [B, L] in the mask at `states` [N, H]; each is [B, L], 0 outside the mask."""
    targets = labels[mask]
    size = max(1, PIECE // head.weight.shape[0])
    pieces = list(zip(states.split(size), targets.split(size), strict=True))
    if len(pieces) == 1 or not torch.is_grad_enabled():
        statistics = [token_statistics(*piece, head) for piece in pieces]
    else:
        statistics = [
            checkpoint(token_statistics, *piece, head, use_reentrant=False, preserve_rng_state=False)
            for piece in pieces
        ]
    columns = (torch.cat(column) for column in zip(*statistics, strict=True))
    log_probs, entropy, sum_of_squares, mean_logits, is_top1 = (
        column.new_zeros(mask.shape).masked_scatter(mask, column) for column in columns
    )
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / mask.sum().clamp(min=1),
        log_probs=log_probs,
        entropy=entropy,
        log_sum_sq_probs=sum_of_squares,
        mean_logits=mean_logits,
        is_top1=is_top1,
        label_mask=mask,
    )


def token_statistics(states: Tensor, targets: Tensor, head: Any) -> tuple[Tensor, ...]:
    """Return log p of the targets, and without a gradient entropy, log Σ p², the mean logit and whether the target is
    the likeliest token; each [N] for states [N, H]."""
    statistics: tuple[Tensor, ...] = TokenStatistics.apply(head(states), targets)
    return statistics


class TokenStatistics(torch.autograd.Function):
    """The statistics of logits [N, V], which are overwritten: by p for the backward pass, and there by the gradient.

    Computed a block of tokens at a time in fp32, each while it is in the cache; no other tensor has the vocabulary's
    width.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        logits = logits.detach()
        size = max(1, BLOCK // logits.shape[-1])
        blocks = [
            block_statistics(*block, overwrite=ctx.needs_input_grad[0])
            for block in zip(logits.split(size), targets.split(size), strict=True)
        ]
        statistics = tuple(torch.cat(column) for column in zip(*blocks, strict=True))
        ctx.mark_non_differentiable(*statistics[1:])
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(targets, statistics[0])
            ctx.p = logits
        return statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """∂ log p_t / ∂ logit_v = [v = t] − p_v; at the target it is −expm1(log p_t), exact where p_t is near 1."""
        gradient, ctx.p = ctx.p, None  # which no second backward pass may read
        targets, log_probs = ctx.saved_tensors
        weight = gradients[0]
        size = max(1, BLOCK // gradient.shape[-1])
        for block, scale in zip(gradient.split(size), weight.split(size), strict=True):
            block.mul_(-scale[:, None])
        at_target = (-torch.expm1(log_probs) * weight).to(gradient.dtype)
        gradient[torch.arange(len(targets)), targets] = at_target  # where `scatter_` would copy all of it twice
        return gradient, None


def block_statistics(logits: Tensor, targets: Tensor, overwrite: bool) -> tuple[Tensor, ...]:
    """Return the statistics of a few tokens' logits, and overwrite these by p."""
    scores = logits.float()  # the logits themselves where those are fp32
    mean_logit = scores.mean(-1)
    is_top1 = scores.gather(-1, targets[:, None]).squeeze(-1) == scores.amax(-1)
    is_top1[is_top1.clone()] = scores[is_top1].argmax(-1) == targets[is_top1]  # slow; the first of equals counts
    logprobs = scores.log_softmax(-1)
    p = logprobs.exp()
    entropy, log_squares = -torch.linalg.vecdot(p, logprobs), torch.linalg.vecdot(p, p).log()
    if overwrite:
        logits.copy_(p)
    log_p = logprobs.gather(-1, targets[:, None]).squeeze(-1)
    return log_p, entropy, log_squares, mean_logit, is_top1
