"""A split's rows, and the tally of what was dropped on the way to it and why."""

import copy
import marshal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, overload

from prefsweep.data.schema import PreferenceExample

# In the order in which they are printed: what is wrong with a row, then where else it went.
REASONS = (
    *("prompts disagree", "empty prompts", "empty completions", "equal completions", "ties", "short"),
    *("in test", "in validation", "in train", "over the maximum", "in another share"),
)


class Tally:
    """The number of rows that were read, and the number dropped for each reason."""

    def __init__(self) -> None:
        self.read = 0
        self.dropped: Counter[str] = Counter()

    def drop(self, reason: str, count: int = 1) -> None:
        assert reason in REASONS
        self.dropped[reason] += count

    def filter_rows(self, rows: Iterable[PreferenceExample | str]) -> Iterator[PreferenceExample]:
        """Yield the examples among the rows; the others are the reasons for which a row is dropped."""
        for row in rows:
            if isinstance(row, str):
                self.drop(row)
            else:
                yield row

    @property
    def remaining(self) -> int:
        return self.read - self.dropped.total()

    def metrics(self, split: str) -> dict[str, int]:
        """Return the counts as a stage records them: `data/test/read`, `data/test/kept`, `data/test/ties`.

        There are none for rows that are generated, not read.
        """
        if not self.read:
            return {}
        counts = {"read": self.read, "kept": self.remaining, **self.dropped}
        return {f"data/{split}/{reason.replace(' ', '_')}": count for reason, count in counts.items()}

    def __str__(self) -> str:
        reasons = ", ".join(f"{self.dropped[reason]:,} {reason}" for reason in REASONS if reason in self.dropped)
        return f"kept {self.remaining:,} of {self.read:,}" + (f": {reasons}" if reasons else "")


values_of = attrgetter(*(field.name for field in fields(PreferenceExample)))


class Examples(Sequence[PreferenceExample]):
    """The rows of one split and their tally; a slice of it is a list.

    A row is held as bytes and decoded whenever it is read: half the memory of Python objects, so that all stages of a
    run can share what was read once.
    """

    def __init__(self, examples: Iterable[PreferenceExample], tally: Tally, split: str):
        self.rows = [marshal.dumps(values_of(example)) for example in examples]
        self.tally = tally
        self.split = split

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> PreferenceExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[PreferenceExample]: ...
    def __getitem__(self, index: int | slice) -> PreferenceExample | list[PreferenceExample]:
        if isinstance(index, slice):
            return list(map(decode, self.rows[index]))
        return decode(self.rows[index])

    def __iter__(self) -> Iterator[PreferenceExample]:
        return map(decode, self.rows)

    def metrics(self) -> dict[str, int]:
        return self.tally.metrics(self.split)

    def groups(self) -> set[str]:
        return {example.group for example in self}

    def keep(self, wanted: Callable[[PreferenceExample], bool], reason: str) -> "Examples":
        """Return the rows that are `wanted`; the tally counts the others under `reason`."""
        return self.replace([row for row in self.rows if wanted(decode(row))], reason)

    def first(self, count: int) -> "Examples":
        return self.replace(self.rows[:count], "over the maximum")

    def sort(self, key: Callable[[PreferenceExample], Any]) -> "Examples":
        return self.replace(sorted(self.rows, key=lambda row: key(decode(row))), "")

    def replace(self, rows: list[bytes], reason: str) -> "Examples":
        """Return a copy with some of these rows and a tally of its own; the rows themselves are shared."""
        other = copy.copy(self)
        other.rows, other.tally = rows, copy.deepcopy(self.tally)
        if self.tally.read and len(rows) < len(self):
            other.tally.drop(reason, len(self) - len(rows))
        return other


def decode(row: bytes) -> PreferenceExample:
    return PreferenceExample(*marshal.loads(row))


def sentences(metrics: dict[str, object]) -> dict[str, str]:
    """Return by split what a record's metrics count: `kept 2,303 of 2,312: 5 prompts disagree, 4 ties`."""
    tallies: dict[str, Tally] = {}
    for name, count in metrics.items():
        head, _, reason = name.rpartition("/")
        if head.startswith("data/") and isinstance(count, int):
            tally = tallies.setdefault(head.removeprefix("data/"), Tally())
            if reason == "read":
                tally.read = count
            elif reason != "kept":
                tally.dropped[reason.replace("_", " ")] += count
    return {split: str(tally) for split, tally in tallies.items()}
