"""Work on a long list in parts, by several processes: the results come in the order of the parts.

The processes are forked, as a DataLoader's are: they find what the work needs where it lies, and only a part and its
result travel. Where a system cannot fork safely (it is not Linux), this process does all of it.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from threading import Thread
from typing import Any, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

_work: Callable[[Any], Any]  # in a forked process: what it was made for


def in_order(work: Callable[[Part], Result], parts: Iterable[Part], workers: int) -> Iterator[Result]:
    if workers < 2 or sys.platform != "linux":
        yield from map(work, parts)
        return
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, forked, initializer=begin, initargs=(work, os.getpid())) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(do, part))
                if len(waiting) > 2 * workers:  # enough that none is idle; no more is held
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def begin(work: Callable[[Any], Any], parent: int) -> None:
    global _work
    _work = work
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the cores are busy, and threads do not survive a fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked too, and ends this
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: int) -> None:
    """Whose parent was killed would wait for its next part for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def do(part: Any) -> Any:
    return _work(part)
