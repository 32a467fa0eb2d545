"""Assign each job one GPU: TRL's trainers refuse a process that sees several, and all jobs would use the first.

The other GPUs are masked before the job initialises CUDA.
"""

import os
import subprocess
from collections.abc import Iterable

MASK = "CUDA_VISIBLE_DEVICES"


def gpus() -> list[str]:
    """Return the GPUs that this process may use: those in the mask, else all that the driver lists."""
    if MASK in os.environ:
        return [name for name in os.environ[MASK].split(",") if name]
    try:
        command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in process.stdout.splitlines() if line.strip()]


def least_used(available: list[str], in_use: Iterable[str | None]) -> str | None:
    """Return the GPU with the fewest jobs on it, the first of equals; None where there is no GPU."""
    jobs = list(in_use)
    return min(available, key=jobs.count, default=None)


def use_gpu(gpu: str | None) -> None:
    """Mask all other GPUs; with None change nothing."""
    if gpu is not None:
        os.environ.setdefault("PREFSWEEP_GPUS", ",".join(gpus()))  # a stage of several processes uses all of them
        os.environ[MASK] = gpu
