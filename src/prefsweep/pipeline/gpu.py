"""The GPUs that a process uses, as torch and NVML tell: memory, time, power. Never fatal, and torch is not imported.

NVML knows a card's power, not a process's: where another process is on the card, no energy is told.
"""

import contextlib
import functools
import sys
import time
from importlib import import_module
from typing import Any

TICK = 1.0  # seconds between two looks


class UnknownError(Exception):
    """Why NVML does not say what this process draws."""


class Gpus:
    """What this process has used of GPUs since this was made."""

    def __init__(self) -> None:
        self.before = allocations()
        for number in self.before:
            with contextlib.suppress(Exception):
                cuda().reset_peak_memory_stats(number)
        self.began = time.monotonic()
        self.last: float | None = None  # when their power was last seen
        self.joules = self.seconds = 0.0
        self.left_out = ""

    def used(self) -> list[int]:
        """Those on which something was allocated, as torch numbers them."""
        return [number for number, count in allocations().items() if count > self.before.get(number, 0)]

    def look(self) -> float | None:
        """Watts of all GPUs used, and the energy since the last look; None where there is nothing to tell."""
        if self.left_out or not (used := self.used()):
            return None
        try:
            watts = sum(power(number) for number in used)
        except UnknownError as error:
            self.left_out = str(error)
            return None
        except Exception as error:  # whatever a driver may say, training goes on
            self.left_out = f"NVML: {error}"
            return None
        now = time.monotonic()
        since = now - self.last if self.last is not None else min(now - self.began, TICK)
        self.joules += watts * since
        self.seconds += since
        self.last = now
        return watts

    def spent(self) -> dict[str, Any]:
        """Nothing where no GPU was used; their time is all the time for which this process could have used them."""
        if not (used := self.used()):
            return {}
        found: dict[str, Any] = {"gpu_seconds": (time.monotonic() - self.began) * len(used)}
        with contextlib.suppress(Exception):  # after a fault of its own, CUDA answers nothing more
            found["gpu_peak_memory_bytes"] = max(cuda().max_memory_allocated(number) for number in used)
        if self.left_out:
            found["energy_left_out"] = self.left_out
        elif self.seconds:
            found |= {"energy_joules": self.joules, "energy_seconds": self.seconds}
        return found


def cuda() -> Any:
    """torch.cuda, where the stage has imported torch: whoever uses a GPU has."""
    return getattr(sys.modules.get("torch"), "cuda", None)


def allocations() -> dict[int, int]:
    """How often each GPU's memory was asked for so far; nothing where none is in use. Starts no driver itself."""
    with contextlib.suppress(Exception):  # torch may be in the midst of being imported
        if cuda() is not None and cuda().is_available() and cuda().is_initialized():
            stats = {number: cuda().memory_stats(number) for number in range(cuda().device_count())}
            return {number: int(found.get("allocation.all.allocated", 0)) for number, found in stats.items()}
    return {}


def power(number: int) -> float:
    """Watts of a GPU that this process has to itself."""
    nvml = library()
    uuid = str(cuda().get_device_properties(number).uuid).removeprefix("GPU-")  # NVML's has the prefix
    card = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
    # By their number: in a container NVML may know this process by another id.
    if len({process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(card)}) > 1:
        raise UnknownError("another process used the GPU")
    return float(nvml.nvmlDeviceGetPowerUsage(card)) / 1000


@functools.cache
def library() -> Any:
    try:
        nvml = import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:
        raise UnknownError(f"no NVML: {error}") from error
    return nvml
