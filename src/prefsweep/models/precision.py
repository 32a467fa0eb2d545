"""Whether a processor multiplies matrices faster in bf16 than in fp32: not every one does."""

import functools
import logging
import time

import torch

LOG = logging.getLogger(__name__)
ROWS, WIDTH = 512, 768  # a layer of GPT-2's: ROWS × WIDTH by WIDTH × 4 WIDTH
REPEATS = 5


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
