"""One stage run by several processes of this machine: the parent keeps the lock, the tracker and the store.

Each process runs the stage's function as one rank of a group that accelerate finds in the environment; rank 0 alone
writes. The parent passes on the rows that rank 0 logs, as they come, and raises what rank 0 raised.
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
from prefsweep.pipeline.files import append_jsonl, atomic
from prefsweep.pipeline.history import History, Row
from prefsweep.pipeline.stage import Context

Result = dict[str, Any]
EVENTS = "events.jsonl"  # the rows that rank 0 logs
REQUEST, OUTCOME = "request.pkl", "outcome.pkl"
GPUS = "PREFSWEEP_GPUS"  # all that the parent might see, before it chose one


def wanted(context: Context) -> bool:
    """Return whether this is the parent of several processes; a rank of them is one already."""
    return context.runtime.processes > 1 and "RANK" not in os.environ


def run(function: Callable[..., Result], arguments: dict[str, Any], context: Context) -> Result:
    """Return `function(**arguments, context=context)`, computed by `runtime.processes` ranks."""
    work, world = context.checkpoints.parent, context.runtime.processes
    name = f"{function.__module__}.{function.__name__}"
    request = (name, arguments, context.runtime, context.checkpoints, context.history.path)
    (work / REQUEST).write_bytes(pickle.dumps(request))
    (work / OUTCOME).unlink(missing_ok=True)
    (work / EVENTS).write_text("")
    port = free_port()
    ranks = [start(rank, world, port, work) for rank in range(world)]
    offset = 0
    try:
        while any(rank.poll() is None for rank in ranks):
            if any(rank.poll() for rank in ranks):
                break  # the others would wait for it for ever
            time.sleep(0.5)
            offset = forward_events(context.history, work / EVENTS, offset)
    finally:
        for rank in ranks:
            rank.terminate()
            rank.wait()
    forward_events(context.history, work / EVENTS, offset)
    context.cost.join()
    if not (work / OUTCOME).is_file():
        raise RuntimeError(f"a process of {function.__module__} ended with {[rank.returncode for rank in ranks]}")
    outcome = pickle.loads((work / OUTCOME).read_bytes())
    if isinstance(outcome, Exception):
        raise outcome
    result: Result = outcome
    return result


def start(rank: int, world: int, port: int, work: Path) -> "subprocess.Popen[bytes]":
    """Start one rank, with what accelerate reads in its environment."""
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    environment = {**os.environ, **{name: str(value) for name, value in group.items()}, "MASTER_ADDR": "127.0.0.1"}
    if gpus := os.environ.get(GPUS):
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus.split(",")[:world])
    return subprocess.Popen([sys.executable, "-m", "prefsweep.stages.distributed", str(work)], env=environment)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def forward_events(history: History, events: Path, offset: int) -> int:
    """Pass the complete rows after `offset` bytes to the history's listener; return the offset of the first one left.

    A line that is half written waits for the next call.
    """
    with events.open("rb") as file:
        file.seek(offset)
        lines, newline, _ = file.read().rpartition(b"\n")
    for line in lines.splitlines():
        history.listener(json.loads(line))
    return offset + len(lines + newline)


def worker_main(work: Path) -> None:
    """Run the requested function as the rank that the environment names; rank 0 leaves its outcome for the parent."""
    import torch

    name, arguments, runtime, checkpoints, history_path = pickle.loads((work / REQUEST).read_bytes())
    is_first = os.environ["RANK"] == "0"

    def log(row: Row) -> None:
        append_jsonl(work / EVENTS, [row])

    history = History(history_path, log) if is_first else History(history_path)
    if runtime.threads:
        torch.set_num_threads(max(1, runtime.threads // runtime.processes))
    module, _, function = name.rpartition(".")
    rank_folder = work / f"{RANK}{os.environ['RANK']}"
    rank_folder.mkdir(exist_ok=True)
    rank_runtime = dataclasses.replace(runtime, progress=runtime.progress and is_first)
    try:
        with watched(Cost(rank_folder)) as cost:
            context = Context(rank_runtime, checkpoints, history, cost=cost)
            outcome = getattr(import_module(module), function)(**arguments, context=context)
    except Exception as error:
        if not is_first:
            raise
        outcome = error
    if is_first:
        with atomic(work / OUTCOME) as temporary:
            temporary.write_bytes(pickle.dumps(outcome))


if __name__ == "__main__":
    worker_main(Path(sys.argv[1]))
