"""The arithmetic of on-policy optimisation. Pure functions over B completions of at most A tokens.

Every [B, A] tensor is right-aligned: the last token of each completion is in the last column, and the mask is 0 before
its first token. All completions therefore end at one column, and a narrower batch is the last columns of a wider one.

Departures from the usual:
- the score is added at the completion's last token (the EOS where there is one); TRL and the reproductions of Stiennon
  et al. add it one later, where no action was taken;
- values need no column more than actions: `values[:, t]` is of the state in which token t was chosen, and the value
  after the last token is 0 by definition, since every completion ends there;
- a masked element is replaced, not multiplied by 0: what the padding holds may be infinite.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-8


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [] of `values` where `mask` is 1."""
    return values.where(mask, 0.0).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor, keep_mean: bool = False) -> Tensor:
    """Scale `values` to variance 1 over the mask and shift them to mean 0, unless `keep_mean`; 0 outside the mask."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    scaled = (values - mean) * torch.rsqrt(variance + VARIANCE_FLOOR)
    return (scaled + mean if keep_mean else scaled).where(mask, 0.0)


def token_rewards(scores: Tensor, logprobs: Tensor, reference: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Return r_t = −kl_coef (log π(y_t) − log π_ref(y_t)) [B, A], with the scores [B] added at the last token.

    Ziegler et al. 2019 (arXiv 1909.08593), equation 2, spread over the tokens. The difference is of the sampled token
    and keeps its sign: its expectation is the KL, that of its absolute value is not.
    """
    rewards = (-kl_coef * (logprobs - reference)).where(mask, 0.0)
    rewards[:, -1] += scores
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Return generalised advantage estimates [B, A], Schulman et al. 2016 (arXiv 1506.02438), equation 16:

    A_t = Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ V_{t+1} − V_t, and V = 0 after the last token.
    """
    advantages = torch.zeros_like(rewards)
    last_gae, next_value = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        last_gae = delta + gamma * lam * last_gae
        advantages[:, t], next_value = last_gae, values[:, t]
    return advantages.where(mask, 0.0)


def kl_per_completion(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Return log π(y) − log π_ref(y) [B] of sampled completions: its mean estimates the KL, one may be negative."""
    return (logprobs - reference).where(mask, 0.0).sum(-1)


def next_kl_coef(kl_coef: float, kl: float, target: float, horizon: float, episodes: int) -> float:
    """Return kl_coef · (1 + clip(KL/target − 1, ±0.2) · episodes/horizon), Ziegler et al. 2019, section 2.2."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * episodes / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return 1 − Var(returns − values) / Var(returns): 1 is a perfect critic, 0 one that knows only the mean."""
    observed, predicted = returns[mask], values[mask]
    variance = observed.var(correction=0)
    return float(1 - (observed - predicted).var(correction=0) / variance) if variance > 0 else 0.0


@dataclass
class Moments:
    """The running mean and variance of all scores so far (Chan, Golub and LeVeque 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # the sum of squared deviations from the mean

    def add(self, scores: Tensor) -> None:
        new, mean = len(scores), float(scores.double().mean())
        total = self.count + new
        difference = mean - self.mean
        self.squares += float(((scores.double() - mean) ** 2).sum()) + difference**2 * self.count * new / total
        self.mean += difference * new / total
        self.count = total

    @property
    def std(self) -> float:
        """1 before the first score, and where all scores are equal: there is nothing to scale."""
        return math.sqrt(self.squares / self.count) if self.count and self.squares > 0 else 1.0

    def normalised(self, scores: Tensor) -> Tensor:
        return (scores - self.mean) / self.std
