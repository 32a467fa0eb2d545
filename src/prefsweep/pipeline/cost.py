"""What a stage costs: the work it counts, its time, its peak memory, and the time and energy of its GPUs.

Counts are of the work that the result is based on: a trainer that resumes from a checkpoint restores the counts saved
with it, so a build that was killed ends with the counts of an undisturbed one. Time, GPU time and energy add up over
all attempts. Nothing here is part of an identity.
"""

import contextlib
import json
import re
import resource
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from prefsweep.pipeline.files import append_jsonl, write_text
from prefsweep.pipeline.gpu import TICK, Gpus

COUNTS = ("labels", "tokens_generated", "tokens_trained", "episodes", "flops")
TRACE = "cost.jsonl"  # rows of `seconds` with the `step` reached, or with the `watts` drawn
SPENT = "spent.json"  # what all attempts have spent; written every few seconds, so that a kill loses no more than that
RANK = "rank-"  # each rank of a distributed stage has its files in a folder of this name and its number
PEAKS = ("peak_memory_bytes", "gpu_peak_memory_bytes")
SAVE_EVERY = 5  # ticks
POINTS = 500  # the most power samples that an exported trace holds
Spent = dict[str, Any]


class Cost:
    """The cost of one stage so far; with a `folder` also on disk, where a later attempt reads it."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.counts = dict.fromkeys(COUNTS, 0)
        self.earlier: Spent = read(folder / SPENT) if folder else {}
        self.started = time.monotonic()
        self.gpus = Gpus()
        with contextlib.suppress(OSError):  # only Linux can forget the peak of an earlier stage in the same process
            Path("/proc/self/clear_refs").write_text("5")

    def add(self, **counts: int) -> None:
        """Add to the counts, by the names in `COUNTS`."""
        for name, count in counts.items():
            self.counts[name] += int(count)

    def restore(self, counts: Mapping[str, int]) -> None:
        """Replace the counts by those of the checkpoint that the stage resumes from."""
        self.counts = dict.fromkeys(COUNTS, 0) | dict(counts)

    def row(self) -> dict[str, int]:
        """Return the counts so far as metrics of the history, which holds no time because it must be reproducible."""
        return {f"cost/{name}": count for name, count in self.counts.items()}

    def reached(self, step: int) -> None:
        """Record in the trace when a step was reached; the history holds no time."""
        self.trace({"step": step, "seconds": round(self.seconds, 3)})

    @property
    def seconds(self) -> float:
        return float(self.earlier.get("seconds", 0.0)) + time.monotonic() - self.started

    def spent(self) -> Spent:
        """Return what all attempts in all processes have spent; each rank's file covers all attempts of that rank."""
        total_spent = self.spent_here()
        for path in sorted(self.folder.glob(f"{RANK}*/{SPENT}")) if self.folder else []:
            rank = read(path)
            rank.pop("seconds", None)  # the ranks ran at the same time as this process, which has measured it
            total_spent = merged(total_spent, rank)
        return total_spent

    def spent_here(self) -> Spent:
        """Return what this process and the same process of earlier attempts have spent."""
        now = {"seconds": time.monotonic() - self.started, "peak_memory_bytes": peak_memory(), **self.gpus.spent()}
        return merged(self.earlier, now)

    def trace(self, row: dict[str, float]) -> None:
        if self.folder is not None:
            append_jsonl(self.folder / TRACE, [row])

    def save(self) -> None:
        if self.folder is not None:
            write_text(self.folder / SPENT, json.dumps(self.spent_here() | {"counts": self.counts}))

    def join(self) -> None:
        """Take over the counts of rank 0, which counts for all ranks of a distributed stage."""
        if self.folder is not None:
            self.restore(read(self.folder / f"{RANK}0" / SPENT).get("counts", {}))

    def record(self) -> dict[str, Any]:
        """Return the `cost` of a stage's record: every count, 0 or not; of the rest, only what could be measured."""
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
        """Write the thinned trace into the stage's folder; write no file where nothing was traced."""
        if self.folder is None:
            return
        if trace := thinned([*rows(self.folder / f"{RANK}0" / TRACE), *rows(self.folder / TRACE)]):
            power_is_known = "energy_left_out" not in self.spent()
            exported = [row for row in trace if power_is_known or "watts" not in row]
            (folder / TRACE).write_text("".join(json.dumps(row) + "\n" for row in exported))


@contextlib.contextmanager
def watched(cost: Cost) -> Iterator[Cost]:
    """Sample the GPUs' power and save the cost from a thread for as long as the block runs."""
    stop = threading.Event()

    def watch() -> None:
        ticks = 0
        while not stop.wait(TICK):
            ticks += 1
            watts = cost.gpus.sample_power()
            with contextlib.suppress(OSError):  # a full disk is for the stage to report
                if watts is not None:
                    cost.trace({"seconds": round(cost.seconds, 1), "watts": round(watts, 1)})
                if ticks % SAVE_EVERY == 0:
                    cost.save()

    thread = threading.Thread(target=watch, name="cost", daemon=True)
    thread.start()
    try:
        yield cost
    finally:
        stop.set()
        thread.join()
        cost.gpus.sample_power()  # for a stage that ended before the first tick
        with contextlib.suppress(OSError):
            cost.save()


def merged(first: Spent, second: Spent) -> Spent:
    """Return the sum of what adds up, the larger of two peaks, and the first of two reasons, without the counts."""
    spent = {name: value for name, value in first.items() if name != "counts"}
    for name, value in second.items():
        if name in spent and not isinstance(value, str):
            spent[name] = max(spent[name], value) if name in PEAKS else spent[name] + value
        elif name != "counts":
            spent.setdefault(name, value)
    return spent


def read(path: Path) -> Spent:
    """Return what an earlier attempt has saved, or an empty dict where there was none."""
    with contextlib.suppress(OSError, ValueError):
        spent: Spent = json.loads(path.read_text())
        return spent
    return {}


def rows(path: Path) -> Iterator[dict[str, float]]:
    """Yield the rows of a trace, without lines that a kill has cut off."""
    if path.is_file():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def thinned(trace: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return a trace with at most `POINTS` rows of power, each the mean of consecutive ones; rows of steps are kept."""
    power = [row for row in trace if "watts" in row]
    size = -(-len(power) // POINTS) or 1
    parts = [power[first : first + size] for first in range(0, len(power), size)]
    means = [{name: round(fmean(row[name] for row in part), 1) for name in ("seconds", "watts")} for part in parts]
    return [row for row in trace if "watts" not in row] + means


def peak_memory() -> int:
    """Return the most bytes that this process has held at once."""
    with contextlib.suppress(OSError):
        if match := re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text()):
            return int(match[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def total(costs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the sum over stages of each measure that all of them have; of energy, over those that used a GPU."""
    known = list(costs)
    names = [name for name in ("seconds", *COUNTS, "gpu_hours") if all(name in cost for cost in known)]
    sums = {name: round(sum(cost[name] for cost in known), 9) for name in names}
    on_gpu = [cost for cost in known if cost.get("gpu_hours")]
    if "gpu_hours" in sums and on_gpu and all("energy_joules" in cost for cost in on_gpu):
        sums["energy_joules"] = round(sum(cost["energy_joules"] for cost in on_gpu), 1)
    return sums
