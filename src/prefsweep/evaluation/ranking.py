"""How well a reward model ranks pairs, from its margins r(chosen) − r(rejected), [pairs]."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

BINS = 10


def metrics(margin: Tensor) -> dict[str, float]:
    return {
        "loss": float(-logsigmoid(margin).mean()),
        "accuracy": float(right(margin).mean()),
        "margin": float(margin.mean()),
        "calibration_error": calibration_error(margin),
    }


def right(margin: Tensor) -> Tensor:
    """Return [pairs] 1 where the chosen one scores higher, ½ for a tie."""
    return (margin > 0).double() + (margin == 0).double() / 2


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
