"""Freed memory stays with the process: page faults counted by the kernel, in a process of its own."""

import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from prefsweep.pipeline.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def step(): [torch.ones(2**24) for _ in range(4)]  # 64 MiB each: glibc returns such blocks at once
for _ in range(3): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="allocators elsewhere have settings of their own")
def test_a_step_finds_the_memory_that_the_last_one_freed() -> None:
    assert faults("kept") * 20 < faults("given back")
