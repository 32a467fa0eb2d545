"""Memory that a process has freed stays with it, where the C library would give it back to the kernel.

Every training step on a CPU frees the tensors that the next one allocates again: a million page faults a step.
"""

import ctypes
import functools
import sys

# mallopt(3) of glibc. Its values are ints: the kernel gets back what is free beyond 2 GiB at the end of the heap.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
SETTINGS = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc serve large blocks from a heap that it keeps; do nothing with another C library."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "gnu_get_libc_version"):
        for name, value in SETTINGS.items():
            library.mallopt(name, value)
