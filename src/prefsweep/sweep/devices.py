"""Which GPU a job sees. One each: TRL's trainers refuse a process that sees several, and jobs would share the first.

The choice is made by masking, before the job first asks for a device.
"""

import os
import subprocess
from collections.abc import Iterable

MASK = "CUDA_VISIBLE_DEVICES"


def gpus() -> list[str]:
    """Those that this process may use: as masked already, else as the driver lists them; none without a driver."""
    if MASK in os.environ:
        return [name for name in os.environ[MASK].split(",") if name]
    try:
        command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()]


def least_used(available: list[str], in_use: Iterable[str | None]) -> str | None:
    """The GPU with the fewest jobs on it, the first of equals; None where there is none."""
    taken = list(in_use)
    return min(available, key=taken.count, default=None)


def see_only(gpu: str | None) -> None:
    if gpu is not None:
        os.environ.setdefault("PREFSWEEP_GPUS", ",".join(gpus()))  # for a stage of several processes
        os.environ[MASK] = gpu
