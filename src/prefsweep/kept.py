"""What was kept of each dataset that a plan reads: as its stages have recorded it, or read now."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prefsweep.config import FileDatasetConfig, SFTConfig, learns
from prefsweep.data.sources import load
from prefsweep.data.tally import sentences
from prefsweep.hub import not_pinned
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Store

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Reading:
    """A dataset of files, and the stages that read it."""

    dataset: FileDatasetConfig
    stages: list[Stage]

    @property
    def splits(self) -> list[str]:
        """Of those that must be read whole to be divided: train brings its validation."""
        learned = any(learns(stage.config, self.dataset) for stage in self.stages)
        return ["train", "test"] if learned else ["test"]

    def recorded(self, store: Store) -> dict[str, str]:
        """By split, what any run's stage that read it has recorded."""
        forms = [stage.payload["sections"]["dataset"] for stage in self.stages]
        said: dict[str, str] = {}
        for record in store.records():
            if (form := record["sections"].get("dataset")) in forms:
                told = sentences(record["metrics"])
                if form["limit"] != self.dataset.limit:
                    told.pop("train", None)
                said |= told
        return said


def readings(stages: Sequence[Stage]) -> list[Reading]:
    """By dataset, with its limit where a stage has one: what evaluates sees it without."""
    found: dict[str, list[Stage]] = {}
    for stage in stages:
        if isinstance(stage.sections.get("dataset"), FileDatasetConfig):
            found.setdefault(stage.sections["dataset"].name, []).append(stage)
    limited = {name: [each.sections["dataset"] for each in stages] for name, stages in found.items()}
    return [
        Reading(next((each for each in limited[name] if each.limit is not None), limited[name][0]), stages)
        for name, stages in found.items()
    ]


def lines(stages: Sequence[Stage], store: Store) -> Iterator[str]:
    """A line a dataset, with whether it may still change."""
    for reading in readings(stages):
        pin = not_pinned(reading.dataset, store.root.parent)
        yield line(reading, reading.recorded(store), pin)


def line(reading: Reading, said: dict[str, str], pin: str | None = None) -> str:
    parts = [f"{split} {said[split]}" for split in SPLITS if split in said] or ["not read yet"]
    return f"{reading.dataset.name}: {'; '.join([*parts, *([pin] if pin else [])])}"


def read_first(stages: Sequence[Stage], store: Store) -> Iterator[str]:
    """Read what no stage has read yet, and say what was kept: a row that is wrong is told before anything is built,
    not after hours of what comes before it."""
    for reading in readings(stages):
        if set(reading.splits) - set(reading.recorded(store)):
            found = {split: load(reading.dataset, split) for split in reading.splits}
            if any(isinstance(stage.config, SFTConfig) for stage in reading.stages):
                for example in found["train"]:
                    example.answer("chosen")  # or a complaint: prompts alone teach it nothing
            yield line(reading, {split: str(examples.tally) for split, examples in found.items()})
