"""Numbers that a paper published, to stand beside ours with the interval that their n gives."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefsweep.report import statistics
from prefsweep.report.columns import HALVES, RATES, SHARES, number
from prefsweep.report.frame import Run
from prefsweep.report.statistics import Estimate


@dataclass(frozen=True)
class Published:
    metric: str
    said: float  # as it was printed
    n: int | None
    source: str
    halves: tuple["Published", ...] = ()  # of half the sum of two rates: those

    @property
    def value(self) -> float:
        """On our scale: a share above 1 was published in percent."""
        return self.said / 100 if self.metric in SHARES and self.said > 1 else self.said

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's for a rate; nothing else can be told from a mean and its n."""
        if not self.n or not 0 <= self.value <= 1:
            return None
        if self.halves:
            rates = [(Estimate(half.value, 0.0, math.inf), half.interval) for half in self.halves]
            whole = Estimate(self.value, 0.0, math.inf)
            found = [(rate, ends) for rate, ends in rates if ends]
            return statistics.half_sum(whole, found) if len(found) == len(rates) else None
        return statistics.wilson(self.value, self.n) if self.metric in RATES else None

    def text(self, decimals: int) -> str:
        found = self.interval
        ends = f" [{number(found[0], decimals)}, {number(found[1], decimals)}]" if found else ""
        return number(self.value, decimals) + ends + (f" (n = {self.n})" if self.n else "")


Entries = Sequence[dict[str, Any]]


def read_published(folders: Sequence[Path]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for folder in folders:
        path = folder / "sweep.json"
        entries = json.loads(path.read_text()).get("published") if path.is_file() else None
        found += [entry for entry in entries or [] if entry not in found]
    return found


def published(metric: str, entry: dict[str, Any]) -> Published:
    n, said = entry.get("n"), entry["metrics"]
    halves = HALVES.get(metric, ())
    return Published(
        metric,
        float(said[metric]),
        int(n) if n else None,
        str(entry.get("source") or ""),
        tuple(published(half, entry) for half in halves) if said.keys() >= set(halves) else (),
    )


def published_for(runs: Sequence[Run], metric: str, entries: Entries) -> Published | None:
    """The first entry that means these runs and names the metric."""
    for entry in entries:
        if metric in entry["metrics"] and all(runs[0].value(key) == value for key, value in entry["where"].items()):
            return published(metric, entry)
    return None
