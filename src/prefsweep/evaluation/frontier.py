"""The optimal reward at each KL to a reference, estimated from N of its completions of each prompt.

The policy with the most reward at a given KL tilts the reference (Rafailov et al. 2023, eq. 4), with a normaliser for
each prompt:

    π*(y | x) = π_ref(y | x) exp(r(x, y) / β) / Z(x)

On N completions y_i ~ π_ref its weights are w_i ∝ exp(r_i / β) and its KL is log N + Σ w_i log w_i. One β serves all
prompts: reward and KL are means over prompts, and their mean is optimal where all slopes are equal.

The optimal gain at KL k is the least over λ of λk + λ·mean log mean exp(r / λ) − mean r, the inner mean over a prompt's
completions, the outer one over prompts. By Jensen the expectation over the N completions is too low, at every N: what
they show is a lower bound. How far it is too low they cannot say; it is little while the weights of each prompt rest on
several completions, 1 / Σ w_i² of them, and no estimate of KL passes log N.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEPS = 80  # values of β, from a tilt that is hardly felt to the best completion alone
FEWEST = 5  # completions on which the weights of a prompt that is trusted rest


@dataclass(frozen=True)
class Curve:
    """Of each prompt at each β, from no tilt to the strongest: KL, value, and the completions behind them [P, K]."""

    kl: Array
    value: Array
    effective: Array

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
        nothing = np.zeros((len(rewards), 1))
        return Curve(nothing, values.mean(1, keepdims=True), nothing + rewards.shape[1])
    one_over_betas = (0.0, *(np.geomspace(0.01, 100, STEPS) / spread))
    tilts = [tilt(rewards, values, one_over_beta) for one_over_beta in one_over_betas]
    return Curve(*(np.stack(column, axis=1) for column in zip(*tilts, strict=True)))


def tilt(rewards: Array, values: Array, one_over_beta: float) -> tuple[Array, Array, Array]:
    """Return, at one β, each prompt's KL [P], its value [P], and on how many completions its weights rest [P]."""
    scores = (rewards - rewards.max(axis=1, keepdims=True)) * one_over_beta
    log_total = np.log(np.exp(scores).sum(axis=1, keepdims=True))
    weights = np.exp(scores - log_total)
    # 0 log 0 is 0: where a weight underflows its log is finite
    kl = np.log(rewards.shape[1]) + (weights * (scores - log_total)).sum(axis=1)
    return np.maximum(kl, 0.0), (weights * values).sum(axis=1), 1 / (weights**2).sum(axis=1)


def trusted_kl(rewards: Array, share: float) -> float:
    """Return the KL up to which prompts whose weights rest on `FEWEST` completions or more have that share of the gain.

    One β serves all prompts, so that one with spread-out rewards runs out of completions while the mean KL is low.
    """
    curve = tilted(rewards, rewards)
    gain = curve.value - curve.value[:, :1]
    fragile = np.where(curve.effective < FEWEST, gain, 0.0).sum(0) > (1 - share) * gain.sum(0)
    last = np.flatnonzero(fragile)[0] - 1 if fragile.any() else -1
    return float(curve.mean()[0][last])


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
