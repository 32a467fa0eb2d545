"""The optimal reward at each KL to a reference, estimated from N of its completions of each prompt.

The policy with the most reward at a given KL tilts the reference (Rafailov et al. 2023, eq. 4), with a normaliser for
each prompt:

    π*(y | x) = π_ref(y | x) exp(r(x, y) / β) / Z(x)

On N completions y_i ~ π_ref its weights are w_i ∝ exp(r_i / β) and its KL is log N + Σ w_i log w_i. One β serves all
prompts: reward and KL are means over prompts, and their mean is optimal where all slopes are equal. No estimate of KL
passes log N, and the reward is underestimated: `gaussian_share` says by how much, were rewards Gaussian.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEPS = 80  # values of β, from a tilt that is hardly felt to the best completion alone


@dataclass(frozen=True)
class Curve:
    """KL and value [P, K] of each prompt at each β, from no tilt to the strongest."""

    kl: Array
    value: Array

    def at(self, kl: Array, weights: Array) -> Array:
        """Return [B] the value at each KL [B], for means over prompts with each row of `weights` [B, P]."""
        kls, values = weights @ self.kl, weights @ self.value
        return np.array([np.interp(*row) for row in zip(kl, kls, values, strict=True)])

    def mean(self) -> tuple[Array, Array]:
        return self.kl.mean(0), self.value.mean(0)


def tilted(rewards: Array, values: Array) -> Curve:
    """Return the curve of `values` [P, N] under tilts by `rewards` [P, N]; of equal arrays it is the optimal reward."""
    spread = float(np.sqrt(rewards.var(axis=1).mean()))
    if spread == 0:  # all completions are equally good: no tilt changes the reference
        return Curve(np.zeros((len(rewards), 1)), values.mean(1, keepdims=True))
    one_over_betas = (0.0, *(np.geomspace(0.01, 100, STEPS) / spread))
    tilts = [tilt(rewards, values, one_over_beta) for one_over_beta in one_over_betas]
    return Curve(*(np.stack(column, axis=1) for column in zip(*tilts, strict=True)))


def tilt(rewards: Array, values: Array, one_over_beta: float) -> tuple[Array, Array]:
    """Return [P] KL and [P] value at one β."""
    scores = (rewards - rewards.max(axis=1, keepdims=True)) * one_over_beta
    log_total = np.log(np.exp(scores).sum(axis=1, keepdims=True))
    weights = np.exp(scores - log_total)
    # 0 log 0 is 0: where a weight underflows its log is finite
    kl = np.log(rewards.shape[1]) + (weights * (scores - log_total)).sum(axis=1)
    return np.maximum(kl, 0.0), (weights * values).sum(axis=1)


def best_of(rewards: Array, values: Array, n: int) -> float:
    """Return the mean value of the best of n by reward, exactly, over all subsets of n of the N completions.

    The i-th lowest of N is the best of C(i − 1, n − 1) of the C(N, n) subsets. Equal rewards share their weight.
    """
    count = rewards.shape[1]
    order = np.arange(1, count + 1, dtype=float)
    below = np.cumprod([1.0, *((order[: count - 1] / np.maximum(order[: count - 1] - n + 1, 1))[n - 1 :])])
    weights = np.concatenate([np.zeros(n - 1), below])
    weights /= weights.sum()
    total = 0.0
    for row, row_values in zip(rewards, values, strict=True):
        _, level = np.unique(row, return_inverse=True)
        by_level = np.bincount(level, row_values) / np.bincount(level)
        total += float((weights * by_level[np.sort(level)]).sum())
    return total / len(rewards)


def best_of_kl(n: int) -> float:
    """Return the bound log n − (n − 1)/n on the KL of the best of n; ties lower the KL (Beirami et al. 2024)."""
    return float(np.log(n) - (n - 1) / n)


@lru_cache
def gaussian(count: int) -> tuple[Array, Array]:
    """Return KLs, and the share of the optimal reward √(2 KL) of Gaussian rewards that N completions show there."""
    rewards = np.random.default_rng(0).standard_normal((2048, count))
    kl, value = tilted(rewards, rewards).mean()
    positive = kl > 0.01
    return kl[positive], value[positive] / np.sqrt(2 * kl[positive])


def gaussian_share(count: int, kl: float) -> float:
    return float(np.interp(kl, *gaussian(count)))


def trusted_kl(count: int, share: float) -> float:
    """Return the KL up to which the curve of N completions shows at least that share of Gaussian rewards' optimum."""
    kl, shown = gaussian(count)
    low = np.flatnonzero(shown < share)
    return min(float(kl[low[0]]) if len(low) else float(kl[-1]), float(np.log(count)))


def resampled(groups: list[str], times: int) -> Array:
    """Return [1 + times, P] the prompts' weights in bootstrap samples of their groups; the first row is the data."""
    names, group_of = np.unique(groups, return_inverse=True)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=times)
    counts = np.concatenate([np.ones((1, len(names))), drawn])[:, group_of].astype(float)
    weights: Array = counts / counts.sum(axis=1, keepdims=True)
    return weights


def interval(values: Array) -> tuple[float, float]:
    """Return the 95% interval of the bootstrap's rows; the first row is the data."""
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return float(low), float(high)
