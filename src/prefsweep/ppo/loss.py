"""The two losses of PPO, a token at a time. Pure; all tensors [B, A], the caller takes the masked mean.

Sums over the mask, not means, are returned: a minibatch may be split into parts of unequal lengths, and the whole is
divided once by its number of tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """Sums over the tokens of a part: the loss, and what is logged of it."""

    loss: Tensor
    clipped: Tensor  # tokens at which the clipped term is the larger, so that no gradient flows
    divergence: Tensor  # KL(old ‖ new) by the estimator ratio − 1 − log ratio, which is never negative
    ratio: Tensor


@dataclass(frozen=True)
class ValueLoss:
    loss: Tensor
    clipped: Tensor


def policy_loss(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> PolicyLoss:
    """−min(r A, clip(r, 1 − ε, 1 + ε) A), r = π(y_t)/π_old(y_t). Schulman et al. 2017 (arXiv 1707.06347), eq. 7."""
    change = (new - old).where(mask, 0.0)  # before the exponential: 0 · ∞ in the padding would poison the gradient
    ratio = change.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return PolicyLoss(
        loss=torch.maximum(plain, clipped).where(mask, 0.0).sum(),
        clipped=((clipped > plain) & mask).sum(),
        divergence=(ratio.detach() - 1 - change.detach()).where(mask, 0.0).sum(),
        ratio=ratio.detach().where(mask, 0.0).sum(),
    )


def value_loss(new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float | None) -> ValueLoss:
    """½ max((V − R)², (V_clip − R)²) with V_clip within ±clip of the old value; ½ (V − R)² where `clip` is None."""
    new = new.where(mask, 0.0)
    plain = (new - returns) ** 2
    if clip is None:
        return ValueLoss(0.5 * plain.where(mask, 0.0).sum(), torch.zeros_like(mask).sum())
    clipped = (torch.minimum(torch.maximum(new, old - clip), old + clip) - returns) ** 2
    larger = torch.maximum(plain, clipped).where(mask, 0.0)
    return ValueLoss(0.5 * larger.sum(), ((clipped > plain) & mask).sum())
