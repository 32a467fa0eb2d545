"""Stages that fail, each in its own way; configs name them by `_target_`."""

import os
import signal
import time
from typing import Any


def killed(config: Any, **rest: Any) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def terminated(config: Any, **rest: Any) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    return {}


def buggy(config: Any, **rest: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {}
    return empty["a planted bug"]


def diverged(config: Any, **rest: Any) -> dict[str, Any]:
    from prefsweep.errors import DivergedError

    raise DivergedError("dpo: the loss was nan at step 7")


def tripped(config: Any, **rest: Any) -> dict[str, Any]:
    """A training that a guard stopped: it leaves its last finite state."""
    from prefsweep.stages import dpo

    return dpo.run(config, **rest) | {"diverged": "dpo: the entropy fell to 0.0001"}
