"""One stage run by several processes of this machine: the parent keeps the lock, the tracker and the store.

Each process runs the stage's function as one rank of a group that accelerate finds in the environment; rank 0 alone
writes. The parent passes on the rows that rank 0 logs, as they come, and raises what rank 0 raised.
"""

import dataclasses
import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from prefsweep.pipeline.cost import RANK, Cost, watched
from prefsweep.pipeline.history import History
from prefsweep.pipeline.stage import Context

Result = dict[str, Any]
GPUS = "PREFSWEEP_GPUS"  # all that the parent might see, before it chose one
PATIENCE = 5  # seconds in which rank 0 may still report after another rank has died


def wanted(context: Context) -> bool:
    """Return whether this is the parent of several processes; a rank of them is one already."""
    return context.runtime.processes > 1 and "RANK" not in os.environ


def run(function: Callable[..., Result], arguments: dict[str, Any], context: Context) -> Result:
    """Return `function(**arguments, context=context)`, computed by `runtime.processes` ranks."""
    spawn, world, port = multiprocessing.get_context("spawn"), context.runtime.processes, free_port()
    request = pickle.dumps((function, arguments, context.runtime, context.checkpoints, context.history.path))
    receiver, sender = spawn.Pipe(duplex=False)
    ranks = [spawn.Process(target=work, args=(group(rank, world, port), request, sender)) for rank in range(world)]
    outcome: Result | Exception | None = None
    for rank in ranks:
        rank.start()
    try:
        # a rank that has died ends it: the others would wait for it for ever
        while outcome is None and (receiver.poll(PATIENCE) or not any(rank.exitcode for rank in ranks)):
            if receiver.poll():
                row, outcome = receiver.recv()
                if outcome is None:
                    context.history.listener(row)
        if isinstance(outcome, dict):
            for rank in ranks:
                rank.join()
    finally:
        for rank in ranks:
            rank.terminate()
            rank.join()
    context.cost.join()
    if outcome is None:
        raise RuntimeError(f"a process of {function.__module__} ended with {[rank.exitcode for rank in ranks]}")
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def group(rank: int, world: int, port: int) -> dict[str, str]:
    """Return what accelerate reads in the environment of a rank."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    environment = {name: str(number) for name, number in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}
    if gpus := os.environ.get(GPUS):
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus.split(",")[:world])
    return environment


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def work(environment: dict[str, str], request: bytes, sender: Connection) -> None:
    """Run the requested function as the rank that `environment` names; rank 0 sends each row, and last its outcome."""
    os.environ.update(environment)  # before torch is imported, which looks for the GPUs
    import torch

    function, arguments, runtime, checkpoints, history_path = pickle.loads(request)
    is_first = environment["RANK"] == "0"
    history = History(history_path, lambda row: sender.send((row, None))) if is_first else History(history_path)
    if runtime.threads:
        torch.set_num_threads(max(1, runtime.threads // runtime.processes))
    folder = checkpoints.parent / f"{RANK}{environment['RANK']}"
    folder.mkdir(exist_ok=True)
    runtime = dataclasses.replace(runtime, progress=runtime.progress and is_first)
    try:
        with watched(Cost(folder)) as cost:
            outcome = function(**arguments, context=Context(runtime, checkpoints, history, cost=cost))
    except Exception as error:
        if not is_first:
            raise
        outcome = error
    if is_first:
        sender.send((None, outcome))
