"""A training that is killed in its midst."""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from importlib import import_module
from typing import Any

from prefsweep.stages import callbacks


def die_at(step: int, work: Callable[[], Any]) -> int | None:
    """Run `work` in a fork that is killed after `step`; its exit code."""

    def child() -> None:
        def kill(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)

        callbacks.Progress.on_step_end = kill  # type: ignore[method-assign]
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    return process.exitcode


def die_at_call(function: str, number: int, work: Callable[[], Any]) -> int | None:
    """Run `work` in a fork that is killed when it calls `function` (a dotted name) for the `number`th time."""
    module, _, name = function.rpartition(".")
    calls = itertools.count(1)

    def child() -> None:
        real = getattr(import_module(module), name)

        def counted(*given: Any, **named: Any) -> Any:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        setattr(import_module(module), name, counted)
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    return process.exitcode
