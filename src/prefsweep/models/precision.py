"""bf16 beside fp32: whether a processor multiplies faster in it, as not every one does; weights cast once a pass."""

import functools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

LOG = logging.getLogger(__name__)
ROWS, WIDTH = 512, 768  # a layer of GPT-2's: ROWS × WIDTH by WIDTH × 4 WIDTH
REPEATS = 5
LINEAR = (nn.Linear, Conv1D)  # the layers whose weights autocast casts


def check_bf16(precision: str, device: torch.device) -> None:
    """Log a line, once a process, where a stage wants bf16 on a CPU that is slower in it."""
    if precision == "bf16" and device.type == "cpu":
        compare()


@functools.cache
def compare() -> None:
    if line := line_of(multiplication_seconds(torch.bfloat16), multiplication_seconds(torch.float32)):
        LOG.warning(line)


def line_of(bf16: float, fp32: float) -> str:
    """Return the line for the seconds that one product takes in each precision; none where bf16 is no slower."""
    if bf16 <= 1.1 * fp32:
        return ""
    return f"precision=bf16 is {bf16 / fp32:.1f} times slower than fp32 on this processor; set precision=fp32"


def multiplication_seconds(dtype: torch.dtype) -> float:
    """Return the least of several timings, after one that prepares the kernel."""
    states, weight = torch.ones(ROWS, WIDTH, dtype=dtype), torch.ones(WIDTH, 4 * WIDTH, dtype=dtype)
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        states @ weight
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


@contextmanager
def weights_cast_once(*models: nn.Module) -> Iterator[None]:
    """Let autocast find the weights of linear layers in its own dtype inside the `with` block; without it do nothing.

    Otherwise it casts each of them again at every step. Every number stays: it is the cast that autocast makes. A layer
    that shares its weight with the embeddings gets a copy of its own, so that embeddings are read as they are.
    """
    device = next(models[0].parameters()).device.type
    casts: dict[nn.Module, dict[str, Any]] = {}
    if torch.is_autocast_enabled(device):
        layers = (module for model in models for module in model.modules() if isinstance(module, LINEAR))
        casts = {layer: dict(layer._parameters) for layer in layers}
    try:
        for module, weights in casts.items():
            for name, weight in weights.items():
                if weight is not None:
                    cast = weight.detach().to(torch.get_autocast_dtype(device))
                    module._parameters[name] = nn.Parameter(cast, requires_grad=False)
        yield
    finally:
        for module, weights in casts.items():
            module._parameters.update(weights)
