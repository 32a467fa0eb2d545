"""One stage by several processes on this machine: the parent keeps the lock, the tracker and the store, they compute.

Each process runs the stage's function as one rank of a group that accelerate finds in the environment; rank 0 alone
writes. The parent passes on what it tells, as it comes, and what the stage raised as its own.
"""

import dataclasses
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from prefsweep.pipeline.cost import RANK, Cost, watched
from prefsweep.pipeline.history import History, Row
from prefsweep.pipeline.stage import Context

Result = dict[str, Any]
TOLD = "events.jsonl"
GPUS = "PREFSWEEP_GPUS"  # all that the parent might see, before it chose one


def wanted(context: Context) -> bool:
    """In the parent of several; a rank of them is one already."""
    return context.runtime.processes > 1 and "RANK" not in os.environ


def run(function: Callable[..., Result], given: dict[str, Any], context: Context) -> Result:
    """`function(**given, context=context)`, by `runtime.processes` ranks."""
    work = context.checkpoints.parent
    asked = (
        f"{function.__module__}.{function.__name__}",
        given,
        context.runtime,
        context.checkpoints,
        context.history.path,
    )
    (work / "request.pkl").write_bytes(pickle.dumps(asked))
    (work / "outcome.pkl").unlink(missing_ok=True)
    (work / TOLD).write_text("")
    ranks = [
        start(rank, context.runtime.processes, port, work)
        for port in [free_port()]
        for rank in range(context.runtime.processes)
    ]
    heard = 0
    try:
        while any(rank.poll() is None for rank in ranks):
            if any(rank.poll() for rank in ranks):
                break  # the others would wait for it for ever
            time.sleep(0.5)
            heard = tell(context.history, work / TOLD, heard)
    finally:
        for rank in ranks:
            rank.terminate()
            rank.wait()
    tell(context.history, work / TOLD, heard)
    context.cost.join()
    if not (work / "outcome.pkl").is_file():
        raise RuntimeError(f"a process of {function.__module__} ended with {[rank.returncode for rank in ranks]}")
    outcome = pickle.loads((work / "outcome.pkl").read_bytes())
    if isinstance(outcome, Exception):
        raise outcome
    result: Result = outcome
    return result


def start(rank: int, world: int, port: int, work: Path) -> "subprocess.Popen[bytes]":
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    environment = {**os.environ, **{name: str(value) for name, value in place.items()}, "MASTER_ADDR": "127.0.0.1"}
    if gpus := os.environ.get(GPUS):
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus.split(",")[:world])
    return subprocess.Popen([sys.executable, "-m", "prefsweep.stages.distributed", str(work)], env=environment)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def tell(history: History, told: Path, heard: int) -> int:
    """What rank 0 told after the first `heard` bytes, to whoever listens; a line half written waits."""
    with told.open("rb") as file:
        file.seek(heard)
        lines, end, _ = file.read().rpartition(b"\n")
    for line in lines.splitlines():
        history.listener(json.loads(line))
    return heard + len(lines + end)


def worker_main(work: Path) -> None:
    import torch

    name, given, runtime, checkpoints, path = pickle.loads((work / "request.pkl").read_bytes())
    first = os.environ["RANK"] == "0"

    def told(row: Row) -> None:
        with (work / TOLD).open("a") as file:
            file.write(json.dumps(row) + "\n")

    history = History(path, told) if first else History(path)
    if runtime.threads:
        torch.set_num_threads(max(1, runtime.threads // runtime.processes))
    module, _, function = name.rpartition(".")
    own = work / f"{RANK}{os.environ['RANK']}"
    own.mkdir(exist_ok=True)
    quiet = dataclasses.replace(runtime, progress=runtime.progress and first)
    try:
        with watched(Cost(own)) as cost:
            context = Context(quiet, checkpoints, history, cost=cost)
            outcome = getattr(import_module(module), function)(**given, context=context)
    except Exception as error:
        if not first:
            raise
        outcome = error
    if first:
        aside = work / ".outcome.pkl"
        aside.write_bytes(pickle.dumps(outcome))
        aside.rename(work / "outcome.pkl")


if __name__ == "__main__":
    worker_main(Path(sys.argv[1]))
