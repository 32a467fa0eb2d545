"""Memory, time and power of the GPUs that a process uses, as torch and NVML report them.

No error here ends a run, and torch is never imported. NVML measures the power of a card, not of a process: where
another process uses the card, no energy is reported.
"""

import contextlib
import functools
import sys
import time
from importlib import import_module
from typing import Any

TICK = 1.0  # seconds between two samples of the power


class Gpus:
    """Measures what this process uses of its GPUs from now on."""

    def __init__(self) -> None:
        self.initial_allocations = allocations()
        for number in self.initial_allocations:
            with contextlib.suppress(Exception):
                cuda().reset_peak_memory_stats(number)
        self.started = time.monotonic()
        self.sampled_at: float | None = None  # when the power was last sampled
        self.joules = self.seconds = 0.0
        self.left_out = ""

    def used(self) -> list[int]:
        """Return the GPUs on which this process has allocated memory since, as torch numbers them."""
        return [number for number, count in allocations().items() if count > self.initial_allocations.get(number, 0)]

    def sample_power(self) -> float | None:
        """Add the energy since the last sample; return the watts of all GPUs in use, None where they are not known."""
        if self.left_out or not (used := self.used()):
            return None
        try:
            watts = sum(power(number) for number in used)
        except Exception as error:  # whatever the driver raises, training goes on
            self.left_out = f"NVML: {error}"
            return None
        now = time.monotonic()
        since = now - self.sampled_at if self.sampled_at is not None else min(now - self.started, TICK)
        self.joules += watts * since
        self.seconds += since
        self.sampled_at = now
        return watts

    def spent(self) -> dict[str, Any]:
        """Return time, peak memory and energy; nothing where no GPU was used. The time is that of the whole process."""
        if not (used := self.used()):
            return {}
        spent: dict[str, Any] = {"gpu_seconds": (time.monotonic() - self.started) * len(used)}
        with contextlib.suppress(Exception):  # after an error CUDA answers no further call
            spent["gpu_peak_memory_bytes"] = max(cuda().max_memory_allocated(number) for number in used)
        if self.left_out:
            spent["energy_left_out"] = self.left_out
        elif self.seconds:
            spent |= {"energy_joules": self.joules, "energy_seconds": self.seconds}
        return spent


def cuda() -> Any:
    """Return torch.cuda if torch is imported, as it is in every stage that uses a GPU."""
    return getattr(sys.modules.get("torch"), "cuda", None)


def allocations() -> dict[int, int]:
    """Return the number of allocations on each GPU so far, without initialising CUDA; empty where it is not in use."""
    with contextlib.suppress(Exception):  # another thread may be importing torch at this moment
        if cuda() is not None and cuda().is_available() and cuda().is_initialized():
            stats = {number: cuda().memory_stats(number) for number in range(cuda().device_count())}
            return {number: int(counters.get("allocation.all.allocated", 0)) for number, counters in stats.items()}
    return {}


def power(number: int) -> float:
    """Return the watts that a GPU draws; raise an error where another process uses it too."""
    nvml = library()
    uuid = str(cuda().get_device_properties(number).uuid).removeprefix("GPU-")  # NVML writes the prefix, torch may not
    card = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
    # Counted, not compared with our process id, which in a container may be another one to NVML.
    if len({process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(card)}) > 1:
        raise RuntimeError("another process used the GPU")
    return float(nvml.nvmlDeviceGetPowerUsage(card)) / 1000


@functools.cache
def library() -> Any:
    nvml = import_module("pynvml")
    nvml.nvmlInit()
    return nvml
