"""What was kept of each dataset that a plan reads: as its stages have recorded it, or read now."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prefsweep.config.schema import FileDatasetConfig
from prefsweep.data.sources import SPLITS, load
from prefsweep.data.tally import sentences
from prefsweep.hub import not_pinned
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Store

Told = tuple[dict[str, object], dict[str, str]]  # a dataset as a record has it, and what was kept by split


@dataclass(frozen=True)
class Reading:
    """A dataset of files, and the stages that read it."""

    dataset: FileDatasetConfig
    stages: list[Stage]

    @property
    def splits(self) -> list[str]:
        """Of those that must be read whole to be divided: train brings its validation."""
        learned = any(stage.config.learns_from(self.dataset) for stage in self.stages)
        return ["train", "test"] if learned else ["test"]

    def recorded(self, records: Sequence[Told]) -> dict[str, str]:
        """By split, what any run's stage that read it has recorded."""
        forms = [stage.payload["sections"]["dataset"] for stage in self.stages]
        said: dict[str, str] = {}
        for form, told in records:
            if form in forms:
                same = form["max_train_samples"] == self.dataset.max_train_samples
                said |= {split: sentence for split, sentence in told.items() if same or split != "train"}
        return said


def readings(stages: Sequence[Stage]) -> list[Reading]:
    """By dataset, with its limit where a stage has one: what evaluates sees it without."""
    found: dict[str, list[Stage]] = {}
    for stage in stages:
        if isinstance(stage.sections.get("dataset"), FileDatasetConfig):
            found.setdefault(stage.sections["dataset"].name, []).append(stage)
    limited = {name: [each.sections["dataset"] for each in stages] for name, stages in found.items()}
    return [
        Reading(next((each for each in limited[name] if each.max_train_samples is not None), limited[name][0]), stages)
        for name, stages in found.items()
    ]


def told(store: Store) -> list[Told]:
    """By every finished stage that has read a dataset; the store is walked once for all of them."""
    found = ((record["sections"].get("dataset"), record["metrics"]) for record in store.records())
    return [(form, sentences(metrics)) for form, metrics in found if form]


def lines(stages: Sequence[Stage], store: Store) -> Iterator[str]:
    """A line a dataset, with whether it may still change."""
    found = readings(stages)
    records = told(store) if found else []
    for reading in found:
        pin = not_pinned(reading.dataset, store.root.parent)
        yield line(reading, reading.recorded(records), pin)


def line(reading: Reading, said: dict[str, str], pin: str | None = None) -> str:
    parts = [f"{split} {said[split]}" for split in SPLITS if split in said] or ["not read yet"]
    return f"{reading.dataset.name}: {'; '.join([*parts, *([pin] if pin else [])])}"


def validate_datasets(stages: Sequence[Stage], store: Store) -> Iterator[str]:
    """Read what no stage has read yet, and say what was kept: a row that is wrong is told before anything is built,
    not after hours of what comes before it."""
    found = readings(stages)
    records = told(store) if found else []
    for reading in found:
        if set(reading.splits) - set(reading.recorded(records)):
            loaded = {split: load(reading.dataset, split) for split in reading.splits}
            if any(stage.config.needs_chosen for stage in reading.stages):
                for example in loaded["train"]:
                    example.completion("chosen")  # or a complaint: prompts alone teach it nothing
            yield line(reading, {split: str(examples.tally) for split, examples in loaded.items()})
