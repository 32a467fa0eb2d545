"""Train, validation and test of a dataset, divided by group: rows that share a prompt never lie in two of them.

Nothing here draws from a stream of random numbers: a row's split and rank follow from its own id and the seed, so they
are the same whatever else is in the file, on every machine and with every version of Python. The first N training rows
contain the first M < N.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from hashlib import blake2b
from typing import Any

from prefsweep.config.schema import FileDatasetConfig
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.tally import Examples, Tally
from prefsweep.errors import UserError

SPLITS = ("train", "validation", "test")
# Yields for each row of the file `train` or `test` its example, or the reason for which it is dropped.
ReadFile = Callable[[str], Iterator[PreferenceExample | str]]


def stable_hash(seed: int, purpose: str, name: str) -> int:
    """Return 64 bits that look random and depend on these arguments alone."""
    message = f"{purpose} {seed} {name}".encode(errors="surrogatepass")
    return int.from_bytes(blake2b(message, digest_size=8).digest(), "big")


def hold_out(groups: Iterable[str], seed: int, purpose: str, count: int) -> set[str]:
    """Return `count` of the groups, or all where there are fewer."""
    return set(sorted(set(groups), key=lambda group: (stable_hash(seed, purpose, group), group))[:count])


class Splits(ABC):
    """The splits of one dataset by name, each computed when it is first asked for and held from then on."""

    def __init__(self) -> None:
        self.computed: dict[str, Examples] = {}

    def __getitem__(self, split: str) -> Examples:
        if split not in self.computed:
            self.computed[split] = self.compute(split)
        return self.computed[split]

    @abstractmethod
    def compute(self, split: str) -> Examples:
        """Return all rows of a split in their final order."""

    def for_tokenizer(self, tokenizer: Any) -> "Splits":
        """Return the splits as this tokenizer divides them into prompts and completions: for most datasets the same."""
        return self


class FileSplits(Splits):
    """The splits of rows in files: a file is read once, when a split first needs it.

    With `test`, the dataset is one file, and so many of its groups are test; without, it has a test file. Either way
    no group of test is in train or validation.
    """

    def __init__(self, dataset: FileDatasetConfig, read_file: ReadFile, test: int | None = None):
        super().__init__()
        self.dataset = dataset
        self.read_file = read_file
        self.test = test

    def read(self, file: str) -> Examples:
        tally = Tally()
        examples = Examples(tally.filter_rows(self.read_file(file)), tally, file)
        tally.read = len(examples) + tally.dropped.total()
        return examples

    @cached_property
    def train_file(self) -> Examples:
        return self.read("train")

    @cached_property
    def test_rows(self) -> Examples:
        if self.test is None:
            return self.read("test")
        return self.train_file.keep(lambda row: row.group in self.test_groups, "in train")

    @cached_property
    def test_groups(self) -> set[str]:
        if self.test is None:
            return self.test_rows.groups()
        groups, dataset = self.train_file.groups(), self.dataset
        if groups and len(groups) < self.test + dataset.validation + 1:
            raise UserError(
                f"dataset={dataset.name}: has {len(groups)} prompts ({self.train_file.tally}); "
                f"dataset.validation={dataset.validation} and dataset.test={self.test} leave none to train on"
            )
        return hold_out(groups, dataset.seed, "test", self.test)

    @cached_property
    def other_rows(self) -> Examples:
        """The rows of train and validation."""
        return self.train_file.keep(lambda row: row.group not in self.test_groups, "in test")

    def compute(self, split: str) -> Examples:
        if split == "test":
            rows = self.test_rows
        elif split == "validation":
            rows = self.other_rows.keep(lambda row: row.group in self.validation_groups, "in train")
        else:
            rows = self.other_rows.keep(lambda row: row.group not in self.validation_groups, "in validation")
        if not rows:
            raise UserError(f"dataset={self.dataset.name}: nothing is left of its {split} split: {rows.tally}")
        rows.split = split
        if not self.dataset.shuffle:
            return rows
        seed, sample_seed = self.dataset.seed, self.dataset.sample_seed
        if split == "train" and sample_seed is not None:
            seed = sample_seed
        return rows.sort(key=lambda row: (stable_hash(seed, "order", row.id), row.id))

    @cached_property
    def validation_groups(self) -> set[str]:
        rows, count = self.other_rows, self.dataset.validation
        groups = rows.groups()
        if groups and len(groups) <= count:
            raise UserError(
                f"dataset.validation={count}: leaves nothing to train on; train has {len(groups)} prompts "
                f"({rows.tally})"
            )
        return hold_out(groups, self.dataset.seed, "validation", count)


def of_share(examples: Examples, share: list[float], name: str) -> Examples:
    """Return the rows whose group hashes to a number, between 0 and 1, from share[0] up to share[1].

    Shares that do not overlap have no group in common, whatever else is in the data. `name` is the dataset's.
    """
    first, last = (round(bound * 2**64) for bound in share)
    rows = examples.keep(lambda row: first <= stable_hash(0, "share", row.group) < last, "in another share")
    if not rows:
        raise UserError(f"dataset={name}: none of its {len(examples)} training rows is in share={share}; widen it")
    return rows
