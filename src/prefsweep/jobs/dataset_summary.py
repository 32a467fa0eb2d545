"""The rows kept of each dataset that a plan reads: as its stages have recorded it, or read now."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prefsweep.config.schema import ABOUT_TRAINING_ROWS, FileDatasetConfig
from prefsweep.data.sources import load
from prefsweep.data.splits import SPLITS
from prefsweep.data.tally import sentences
from prefsweep.hub import not_pinned
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Store

# A dataset's section as a stage's record has it, and by split the sentence of what that stage kept.
Recorded = tuple[dict[str, object], dict[str, str]]


@dataclass(frozen=True)
class Reading:
    """A dataset of files, and the stages that read it: a judge that chooses its own rows, or all others."""

    dataset: FileDatasetConfig
    stages: list[Stage]

    @property
    def learner(self) -> str | None:
        """The stage that chooses its own training rows, if this is its reading."""
        return next((stage.name for stage in self.stages if stage.config.own_rows), None)

    @property
    def splits(self) -> list[str]:
        """The splits that need a file of their own to be read: validation is divided from train."""
        trains = any(stage.config.learns_from(self.dataset) for stage in self.stages)
        return ["train"] * trains + ["test"] * (self.learner is None)

    def recorded(self, records: Sequence[Recorded]) -> dict[str, str]:
        """Return by split what any run's stage that read it has recorded."""
        sections = [stage.payload["sections"]["dataset"] for stage in self.stages]
        summaries: dict[str, str] = {}
        for section, by_split in records:
            if section in sections:
                same_rows = all(section[key] == getattr(self.dataset, key) for key in ABOUT_TRAINING_ROWS)
                summaries |= {name: sentence for name, sentence in by_split.items() if same_rows or name != "train"}
        return summaries


def readings(stages: Sequence[Stage]) -> list[Reading]:
    """Return a reading for each dataset, with the choice of training rows if a stage has it: those that evaluate do
    not; and one more for a judge that chooses its own."""
    readers: dict[tuple[str, bool], list[Stage]] = {}
    for stage in stages:
        if isinstance(stage.sections.get("dataset"), FileDatasetConfig):
            readers.setdefault((stage.sections["dataset"].name, bool(stage.config.own_rows)), []).append(stage)
    sections = [[stage.sections["dataset"] for stage in stages] for stages in readers.values()]
    datasets = [max(forms, key=has_choice) for forms in sections]
    return [Reading(dataset, stages) for dataset, stages in zip(datasets, readers.values(), strict=True)]


def has_choice(dataset: FileDatasetConfig) -> bool:
    return any(getattr(dataset, key) is not None for key in ABOUT_TRAINING_ROWS)


def readings_with_summaries(stages: Sequence[Stage], store: Store) -> Iterator[tuple[Reading, dict[str, str]]]:
    """Yield each reading with what the finished stages that read its dataset have recorded of it."""
    if datasets := readings(stages):
        sections = ((record["sections"].get("dataset"), record["metrics"]) for record in store.records())
        records = [(section, sentences(metrics)) for section, metrics in sections if section]
        yield from ((reading, reading.recorded(records)) for reading in datasets)


def lines(stages: Sequence[Stage], store: Store) -> Iterator[str]:
    """Yield a line for each dataset: the rows kept of each split, and whether its commit is pinned."""
    for reading, summaries in readings_with_summaries(stages, store):
        yield line(reading, summaries, not_pinned(reading.dataset, store.root.parent))


def line(reading: Reading, summaries: dict[str, str], pin: str | None = None) -> str:
    parts = [f"{split} {summaries[split]}" for split in SPLITS if split in summaries] or ["not read yet"]
    name = reading.dataset.name + (f" for {reading.learner}" if reading.learner else "")
    return f"{name}: {'; '.join([*parts, *([pin] if pin else [])])}"


def validate_datasets(stages: Sequence[Stage], store: Store) -> Iterator[str]:
    """Read what no stage has read yet, and yield a line for each such dataset: an invalid row is an error before
    anything is built, not after hours. The stages find in memory what was read here."""
    for reading, summaries in readings_with_summaries(stages, store):
        if set(reading.splits) - set(summaries):
            examples = {split: load(reading.dataset, split) for split in reading.splits}
            needs_chosen = any(stage.config.needs_chosen for stage in reading.stages)
            if needs_chosen and reading.dataset.pairs != "labelled":
                for example in examples["train"]:
                    example.completion("chosen")  # raises if there is none: prompts alone teach nothing
            yield line(reading, {split: str(rows.tally) for split, rows in examples.items()})
