"""What was kept of a dataset, what was left out, and why."""

from collections import Counter
from collections.abc import Iterable

from prefsweep.data.schema import PreferenceExample

# In the order in which they are said: what is wrong with a row, then where else it went.
REASONS = (
    *("prompts disagree", "empty questions", "empty answers", "equal answers", "ties", "short"),
    *("in test", "in validation", "in train", "over the limit", "in another share"),
)


class Tally:
    """Counts by reason; `read` is the number of rows there were."""

    def __init__(self) -> None:
        self.read = 0
        self.dropped: Counter[str] = Counter()

    def drop(self, reason: str, count: int = 1) -> None:
        assert reason in REASONS
        self.dropped[reason] += count

    @property
    def kept(self) -> int:
        return self.read - self.dropped.total()

    def metrics(self, split: str) -> dict[str, int]:
        """As a stage's record holds them: `data/test/read`, `data/test/kept`, `data/test/empty_answers`.

        Nothing of a world that is made, not read.
        """
        if not self.read:
            return {}
        counts = {"read": self.read, "kept": self.kept, **self.dropped}
        return {f"data/{split}/{reason.replace(' ', '_')}": count for reason, count in counts.items()}

    def __str__(self) -> str:
        reasons = ", ".join(f"{self.dropped[reason]:,} {reason}" for reason in REASONS if reason in self.dropped)
        return f"kept {self.kept:,} of {self.read:,}" + (f": {reasons}" if reasons else "")


class Examples(list[PreferenceExample]):
    """A split, with what became of the rows of its file."""

    def __init__(self, examples: Iterable[PreferenceExample], tally: Tally, split: str):
        super().__init__(examples)
        self.tally = tally
        self.split = split

    def metrics(self) -> dict[str, int]:
        return self.tally.metrics(self.split)


def sentences(metrics: dict[str, object]) -> dict[str, str]:
    """By split, what a record's metrics say: `kept 2,303 of 2,312: 5 prompts disagree, 4 empty answers`."""
    tallies: dict[str, Tally] = {}
    for name, count in metrics.items():
        head, _, reason = name.rpartition("/")
        if head.startswith("data/") and isinstance(count, int):
            tally = tallies.setdefault(head.removeprefix("data/"), Tally())
            if reason == "read":
                tally.read = count
            elif reason != "kept":
                tally.drop(reason.replace("_", " "), count)
    return {split: str(tally) for split, tally in tallies.items()}
