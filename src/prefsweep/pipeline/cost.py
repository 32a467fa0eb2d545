"""What a stage costs: what it counts itself, its time, the memory it held, and its GPUs' time and energy.

Counts are of the work that the result stands on: a trainer that goes on from a checkpoint restores that checkpoint's,
so a killed build ends with the counts of an undisturbed one. Time, GPU time and energy are of every attempt. Nothing
here is part of an identity.
"""

import contextlib
import json
import re
import resource
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prefsweep.pipeline.gpu import TICK, Gpus

COUNTS = ("labels", "tokens_generated", "tokens_trained", "episodes", "flops")
TRACE = "cost.jsonl"  # rows of `seconds` with the `step` reached, or with the `watts` drawn
SPENT = "spent.json"  # what the attempts so far have spent; written every few seconds, so that a kill loses no more
RANK = "rank-"  # one of several processes has its files in a folder of this name and its number
PEAKS = ("peak_memory_bytes", "gpu_peak_memory_bytes")
TICKS = 5  # looks at the power between two writings
POINTS = 500  # of a trace of power as it is kept
Spent = dict[str, Any]


class Cost:
    """What one stage's work has cost so far; with a `folder` also on disk, where a later attempt finds it."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.counts = dict.fromkeys(COUNTS, 0)
        self.earlier: Spent = read(folder / SPENT) if folder else {}
        self.started = time.monotonic()
        self.gpus = Gpus()
        forget_peak()

    def add(self, **counts: int) -> None:
        """What a stage counts itself; `COUNTS` are the words for it."""
        for name, count in counts.items():
            self.counts[name] += int(count)

    def restore(self, counts: Mapping[str, int]) -> None:
        """Those of the checkpoint from which the stage goes on."""
        self.counts = dict.fromkeys(COUNTS, 0) | dict(counts)

    def row(self) -> dict[str, int]:
        """The counts so far, as a row of the history has them: reproducible, so no time is among them."""
        return {f"cost/{name}": count for name, count in self.counts.items()}

    def reached(self, step: int) -> None:
        """When: beside the history, which knows no time."""
        self.trace({"step": step, "seconds": round(self.seconds, 3)})

    @property
    def seconds(self) -> float:
        return float(self.earlier.get("seconds", 0.0)) + time.monotonic() - self.started

    def spent(self) -> Spent:
        """By this attempt and the earlier ones, in all processes: each rank's file is of its every attempt."""
        found = self.own()
        for path in sorted(self.folder.glob(f"{RANK}*/{SPENT}")) if self.folder else []:
            rank = read(path)
            rank.pop("seconds", None)  # they ran at once, and this clock ran too
            found = merged(found, rank)
        return found

    def own(self) -> Spent:
        now = {"seconds": time.monotonic() - self.started, "peak_memory_bytes": peak_memory(), **self.gpus.spent()}
        return merged(self.earlier, now)

    def trace(self, row: dict[str, float]) -> None:
        if self.folder is not None:
            with (self.folder / TRACE).open("a") as file:
                file.write(json.dumps(row) + "\n")

    def save(self) -> None:
        if self.folder is not None:
            aside = self.folder / f".{SPENT}"
            aside.write_text(json.dumps(self.own() | {"counts": self.counts}))
            aside.replace(self.folder / SPENT)

    def join(self) -> None:
        """Several processes did the work: the first counted for all."""
        if self.folder is not None:
            self.restore(read(self.folder / f"{RANK}0" / SPENT).get("counts", {}))

    def record(self) -> dict[str, Any]:
        """As a stage's record has it. Every count is there, be it 0; what is not there is not known."""
        spent = self.spent()
        hours = spent.pop("gpu_seconds", 0.0) / 3600
        sampled = spent.pop("energy_seconds", 0.0)
        if "energy_left_out" in spent:
            spent.pop("energy_joules", None)
        elif sampled:
            spent["power_watts"] = round(spent["energy_joules"] / sampled, 1)
            spent["energy_joules"] = round(spent["energy_joules"], 1)
        return spent | {"seconds": round(spent["seconds"], 3), **self.counts, "gpu_hours": round(hours, 9)}

    def export_to(self, folder: Path) -> None:
        """The trace, thinned, into the stage's own folder; no file where nothing was traced."""
        if self.folder is None:
            return
        if found := thinned([*rows(self.folder / f"{RANK}0" / TRACE), *rows(self.folder / TRACE)]):
            known = "energy_left_out" not in self.spent()
            kept = [row for row in found if known or "watts" not in row]
            (folder / TRACE).write_text("".join(json.dumps(row) + "\n" for row in kept))


@contextlib.contextmanager
def watched(cost: Cost) -> Iterator[Cost]:
    """While the work is done, a thread looks at the GPUs' power and writes down what has been spent."""
    stop = threading.Event()

    def look() -> None:
        ticks = 0
        while not stop.wait(TICK):
            ticks += 1
            watts = cost.gpus.look()
            with contextlib.suppress(OSError):  # a full disk is the stage's to complain of
                if watts is not None:
                    cost.trace({"seconds": round(cost.seconds, 1), "watts": round(watts, 1)})
                if ticks % TICKS == 0:
                    cost.save()

    thread = threading.Thread(target=look, name="cost", daemon=True)
    thread.start()
    try:
        yield cost
    finally:
        stop.set()
        thread.join()
        cost.gpus.look()  # of a stage that was done before the first
        with contextlib.suppress(OSError):
            cost.save()


def merged(one: Spent, other: Spent) -> Spent:
    """Sums of what adds up, the larger of two peaks, the first of two reasons; counts are not merged."""
    found = {name: value for name, value in one.items() if name != "counts"}
    for name, value in other.items():
        if name in found and not isinstance(value, str):
            found[name] = max(found[name], value) if name in PEAKS else found[name] + value
        elif name != "counts":
            found.setdefault(name, value)
    return found


def read(path: Path) -> Spent:
    """What an earlier attempt wrote; nothing where there was none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def rows(path: Path) -> Iterator[dict[str, float]]:
    if path.is_file():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):  # a line that a kill cut off
                yield json.loads(line)


def thinned(trace: list[dict[str, float]]) -> list[dict[str, float]]:
    """At most `POINTS` rows of power, each the mean of as many looks; the rows of steps stay as they are."""
    power = [row for row in trace if "watts" in row]
    size = -(-len(power) // POINTS) or 1
    parts = [power[first : first + size] for first in range(0, len(power), size)]
    means = [
        {name: round(sum(row[name] for row in part) / len(part), 1) for name in ("seconds", "watts")} for part in parts
    ]
    return [row for row in trace if "watts" not in row] + means


def forget_peak() -> None:
    """From here on the peak is this stage's, not that of one before it in the same process. Linux alone can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The most bytes this process held at once."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def total(costs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The sum over stages of each measure that all of them have; energy, of those that held a GPU."""
    known = list(costs)
    found: dict[str, float] = {}
    for name in ("seconds", *COUNTS, "gpu_hours"):
        if all(name in each for each in known):
            found[name] = round(sum(each[name] for each in known), 9)
    on_gpu = [each for each in known if each.get("gpu_hours")]
    if "gpu_hours" in found and on_gpu and all("energy_joules" in each for each in on_gpu):
        found["energy_joules"] = round(sum(each["energy_joules"] for each in on_gpu), 1)
    return found
