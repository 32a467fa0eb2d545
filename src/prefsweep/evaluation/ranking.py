"""How well a reward model ranks pairs, from its rewards of the chosen and the rejected completions, [pairs] each."""

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import logsigmoid

BINS = 10
TEMPERATURES = (1e-3, 1e3)  # the range in which one is fitted


def metrics(chosen: Tensor, rejected: Tensor) -> dict[str, float]:
    margin = chosen - rejected
    temperature = fitted_temperature(margin)
    return {
        "loss": loss(margin),
        "accuracy": float(right(margin).mean()),
        "margin": float(margin.mean()),
        "reward": float((chosen + rejected).mean() / 2),
        "calibration_error": calibration_error(margin),
        "temperature": temperature,
        "calibration_error_scaled": calibration_error(margin.double() / temperature),
    }


def loss(margin: Tensor) -> float:
    """Return the mean of −log σ(margin)."""
    return float(-logsigmoid(margin).mean())


def right(margin: Tensor) -> Tensor:
    """Return [pairs] 1 where the chosen one scores higher, ½ for a tie."""
    return (margin > 0).double() + (margin == 0).double() / 2


def fitted_temperature(margin: Tensor) -> float:
    """Return the T that minimises the mean of −log σ(margin / T) (temperature scaling, Guo et al. 2017).

    The loss is convex in 1/T, so there is one minimum. It is near an end of TEMPERATURES where no T within would do:
    at the low one if every pair is ranked correctly, at the high one if the margins have a mean below 0.
    """
    margin = margin.double()
    bounds = tuple(map(math.log, TEMPERATURES))
    fit = minimize_scalar(lambda log: loss(margin / math.exp(log)), bounds=bounds, options={"xatol": 1e-6})
    return math.exp(fit.x)


def calibration_error(margin: Tensor) -> float:
    """Return the expected calibration error (Guo et al. 2017, eq. 5).

    It is the distance of the confidence σ(|margin|) to the accuracy, over ten equal bins of [½, 1] weighted by their
    pairs.
    """
    confidence, hits = margin.double().abs().sigmoid(), right(margin)
    bins = ((confidence - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    gaps = [(confidence[bins == index] - hits[bins == index]).sum().abs() for index in range(BINS)]
    return float(torch.stack(gaps).sum() / len(margin))


def length_accuracy(chosen: list[int], rejected: list[int]) -> float:
    """Return the accuracy of the better of two rules: prefer the longer completion, or prefer the shorter."""
    longer = float(right(torch.tensor(chosen) - torch.tensor(rejected)).mean())
    return max(longer, 1 - longer)
