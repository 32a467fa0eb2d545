"""When to stop: a run that no longer does reinforcement learning must not look like a result of it."""

import math

import torch
from torch import Tensor

from prefsweep.config.stages import OnPolicyConfig


class TrippedError(Exception):
    """One line: what left its bounds, when, and which setting to move. The weights are still those before it."""


def check_rollouts(config: OnPolicyConfig, iteration: int, scores: Tensor, kl: Tensor, entropy: float) -> None:
    """Raise where the scores [N], the KL [N] (log π(y) − log π_ref(y) of each completion) or the entropy is impossible.

    Under honest sampling E[exp(−Σ kl)] = 1, so by Markov Σ kl < −a has a probability below exp(−a), whatever the
    policy. Beyond that, completions are not drawn from the distribution whose log-probabilities are used.
    """
    where = f"at iteration {iteration}"
    if not torch.isfinite(scores).all():
        raise TrippedError(f"a score was not finite {where}: the scorer broke on one of the completions")
    total = float(kl.sum())
    if not math.isfinite(total):
        raise TrippedError(f"the KL was {total} {where}; lower its learning_rate")
    if total < -config.negative_kl:
        raise TrippedError(
            f"the KL of {len(kl)} completions summed to {total:.1f} {where}, which honest sampling makes less likely "
            f"than exp(−{config.negative_kl:g}); lower its learning_rate, or set its precision=fp32"
        )
    if entropy < config.min_entropy:
        raise TrippedError(
            f"the entropy fell to {entropy:.4f} nats a token {where}: one completion for every prompt; raise its "
            "kl_coef or lower its learning_rate"
        )


def check_step(iteration: int, losses: Tensor, gradient_norm: float) -> None:
    """Raise where a loss or the gradient is not finite: called between the backward pass and the optimiser's step."""
    if not torch.isfinite(losses).all():
        raise TrippedError(f"a loss was not finite at iteration {iteration}; lower its learning_rate")
    if not math.isfinite(gradient_norm):
        raise TrippedError(f"the gradient's norm was {gradient_norm} at iteration {iteration}; lower its learning_rate")
