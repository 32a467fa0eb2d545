"""The losses of policy and critic, a token at a time. Pure functions; every tensor is [B, A].

They return sums over the mask, not means: a minibatch may be split into micro-batches of unequal lengths, and the total
is divided once by the number of tokens of the minibatch.
"""

import torch
from torch import Tensor


def policy_loss(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> dict[str, Tensor]:
    """−min(r A, clip(r, 1 − ε, 1 + ε) A), r = π(y_t)/π_old(y_t). Schulman et al. 2017 (arXiv 1707.06347), eq. 7.

    Beside the loss stand KL(old ‖ new) by the estimator r − 1 − log r, which is never negative, the tokens at which the
    clipped term is the larger, so that no gradient flows, and the ratio.
    """
    log_ratio = (new - old).where(mask, 0.0)  # before the exponential: 0 · ∞ in the padding would poison the gradient
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return {
        "loss/policy": torch.maximum(unclipped, clipped).where(mask, 0.0).sum(),
        "approx_kl": (ratio.detach() - 1 - log_ratio.detach()).where(mask, 0.0).sum(),
        "clip_fraction/policy": ((clipped > unclipped) & mask).sum(),
        "ratio": ratio.detach().where(mask, 0.0).sum(),
    }


def value_loss(new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float | None) -> dict[str, Tensor]:
    """½ max((V − R)², (V_clip − R)²) with V_clip within ±clip of the old value; ½ (V − R)² where `clip` is None.

    Beside the loss stand the tokens at which its clipped term is the larger.
    """
    new = new.where(mask, 0.0)
    unclipped = (new - returns) ** 2
    bounded = new if clip is None else torch.minimum(torch.maximum(new, old - clip), old + clip)
    clipped = (bounded - returns) ** 2
    larger = torch.maximum(unclipped, clipped).where(mask, 0.0)
    return {"loss/value": 0.5 * larger.sum(), "clip_fraction/value": ((clipped > unclipped) & mask).sum()}


def kl_penalty(new: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Return Σ_t (r − log r − 1) with r = π_ref(y_t)/π(y_t), which is differentiated. Shao et al. 2024, equation 4.

    Each term is never negative, and over tokens drawn from π its expectation is KL(π ‖ π_ref): the estimator k3.
    """
    log_ratio = (reference - new).where(mask, 0.0)
    return (log_ratio.exp() - log_ratio - 1).where(mask, 0.0).sum()
