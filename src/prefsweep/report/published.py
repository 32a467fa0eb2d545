"""Numbers that a paper published, to stand beside ours with the interval that their n gives."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefsweep.report import statistics
from prefsweep.report.columns import number
from prefsweep.report.frame import Run


@dataclass(frozen=True)
class Published:
    value: float
    n: int | None
    source: str

    def on_scale_of(self, is_rate: bool) -> float:
        """A rate above 1 was published in percent."""
        return self.value / 100 if is_rate and self.value > 1 else self.value

    def interval(self, is_rate: bool) -> tuple[float, float] | None:
        """Wilson's for a rate; nothing else can be told from a mean and its n."""
        value = self.on_scale_of(is_rate)
        return statistics.wilson(value, self.n) if is_rate and self.n and 0 <= value <= 1 else None

    def text(self, is_rate: bool, decimals: int) -> str:
        found = self.interval(is_rate)
        ends = f" [{number(found[0], decimals)}, {number(found[1], decimals)}]" if found else ""
        return number(self.on_scale_of(is_rate), decimals) + ends + (f" (n = {self.n})" if self.n else "")


Entries = Sequence[dict[str, Any]]


def read_published(folders: Sequence[Path]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for folder in folders:
        path = folder / "sweep.json"
        entries = json.loads(path.read_text()).get("published") if path.is_file() else None
        found += [entry for entry in entries or [] if entry not in found]
    return found


def published_for(runs: Sequence[Run], metric: str, entries: Entries) -> Published | None:
    """The first entry that means these runs and names the metric."""
    for entry in entries:
        if metric in entry["metrics"] and all(runs[0].value(key) == value for key, value in entry["where"].items()):
            n = entry.get("n")
            return Published(float(entry["metrics"][metric]), int(n) if n else None, str(entry.get("source") or ""))
    return None
