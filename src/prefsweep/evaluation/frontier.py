"""The best that any policy could reach at each KL to the reference, from N of its answers to each prompt.

The policy with the most reward at a KL is the tilted one (Rafailov et al. 2023, eq. 4), with a normaliser per prompt:

    π*(y | x) = π_ref(y | x) exp(r(x, y) / β) / Z(x)

On N answers y_i ~ π_ref it weighs w_i ∝ exp(r_i / β), its KL is log N + Σ w_i log w_i, and one β serves all prompts:
equal slopes everywhere are what makes it best. Reward and KL are means over prompts. No estimate of KL passes log N,
and the reward is low by what N answers cannot hold: `gaussian_share` says how low, were rewards Gaussian.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEPS = 80  # β between a tilt that is hardly felt and the best answer alone


@dataclass(frozen=True)
class Curve:
    """[P, K]: of each prompt at each β, the weakest tilt first, which is none."""

    kl: Array
    value: Array

    def at(self, kl: Array, weights: Array) -> Array:
        """[B]: the value at each KL, of the mean over prompts that each row of `weights` [B, P] says."""
        kls, values = weights @ self.kl, weights @ self.value
        return np.array([np.interp(*row) for row in zip(kl, kls, values, strict=True)])

    def mean(self) -> tuple[Array, Array]:
        return self.kl.mean(0), self.value.mean(0)


def tilted(rewards: Array, values: Array) -> Curve:
    """[P, N] rewards that tilt and values that are averaged; equal arrays give the best attainable reward."""
    spread = float(np.sqrt(rewards.var(axis=1).mean()))
    if spread == 0:  # nothing to prefer: the reference is all there is
        return Curve(np.zeros((len(rewards), 1)), values.mean(1, keepdims=True))
    found = [tilt(rewards, values, one_over) for one_over in (0.0, *(np.geomspace(0.01, 100, STEPS) / spread))]
    return Curve(*(np.stack(column, axis=1) for column in zip(*found, strict=True)))


def tilt(rewards: Array, values: Array, one_over_beta: float) -> tuple[Array, Array]:
    """[P] KL and [P] value at one β."""
    scores = (rewards - rewards.max(axis=1, keepdims=True)) * one_over_beta
    log_total = np.log(np.exp(scores).sum(axis=1, keepdims=True))
    weights = np.exp(scores - log_total)
    # 0 log 0 is 0: where a weight underflows its log is finite
    kl = np.log(rewards.shape[1]) + (weights * (scores - log_total)).sum(axis=1)
    return np.maximum(kl, 0.0), (weights * values).sum(axis=1)


def best_of(rewards: Array, values: Array, n: int) -> float:
    """The mean value of the best of n by reward, by order statistics: every subset of n of the N, no luck of drawing.

    The i-th lowest of N is the best of C(i − 1, n − 1) of the C(N, n) subsets. Equal rewards share their weight.
    """
    count = rewards.shape[1]
    order = np.arange(1, count + 1, dtype=float)
    below = np.cumprod([1.0, *((order[: count - 1] / np.maximum(order[: count - 1] - n + 1, 1))[n - 1 :])])
    weights = np.concatenate([np.zeros(n - 1), below])
    weights /= weights.sum()
    total = 0.0
    for row, worth in zip(rewards, values, strict=True):
        _, place = np.unique(row, return_inverse=True)
        by_level = np.bincount(place, worth) / np.bincount(place)
        total += float((weights * by_level[np.sort(place)]).sum())
    return total / len(rewards)


def best_of_kl(n: int) -> float:
    """KL of the best of n to the reference: log n − (n − 1)/n, and less where rewards tie (Beirami et al. 2024)."""
    return float(np.log(n) - (n - 1) / n)


@lru_cache
def gaussian(count: int) -> tuple[Array, Array]:
    """KL, and the share of the truth that N answers show there: with Gaussian rewards the most is √(2 KL)."""
    rewards = np.random.default_rng(0).standard_normal((2048, count))
    kl, value = tilted(rewards, rewards).mean()
    there = kl > 0.01
    return kl[there], value[there] / np.sqrt(2 * kl[there])


def gaussian_share(count: int, kl: float) -> float:
    return float(np.interp(kl, *gaussian(count)))


def trusted_kl(count: int, share: float) -> float:
    """How far the curve of N answers can be believed: as far as it would show that share of the truth."""
    kl, shown = gaussian(count)
    low = np.flatnonzero(shown < share)
    return min(float(kl[low[0]]) if len(low) else float(kl[-1]), float(np.log(count)))


def resampled(groups: list[str], times: int) -> Array:
    """[B, P] weights of the prompts in each bootstrap sample of their groups; the first row is the sample as it is."""
    names, place = np.unique(groups, return_inverse=True)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=times)
    counts = np.concatenate([np.ones((1, len(names))), drawn])[:, place].astype(float)
    whole: Array = counts / counts.sum(axis=1, keepdims=True)
    return whole


def interval(values: Array) -> tuple[float, float]:
    """95%, of the bootstrap's rows."""
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return float(low), float(high)
