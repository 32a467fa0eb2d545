"""Train, validation and test, by group: rows that share a prompt never lie in two of them.

Nothing here draws from a stream of random numbers: a row's place follows from its own name and the seed, so it is the
same whatever else is in the file, on every machine and with every version of Python. More rows of a limit hold fewer.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

from prefsweep.config.schema import FileDatasetConfig
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.tally import Examples, Tally
from prefsweep.errors import UserError

Read = Callable[[str, Tally], Iterator[PreferenceExample]]  # the rows of a file of the hub, `train` or `test`


def drawn(seed: int, purpose: str, name: str) -> int:
    """64 bits that look random, and are the same wherever they are drawn."""
    said = f"{purpose} {seed} {name}".encode(errors="surrogatepass")
    return int.from_bytes(blake2b(said, digest_size=8).digest(), "big")


def held_out(groups: Iterable[str], seed: int, purpose: str, count: int) -> set[str]:
    """`count` of the groups, or all where there are fewer."""
    return set(sorted(set(groups), key=lambda group: (drawn(seed, purpose, group), group))[:count])


def published(dataset: FileDatasetConfig, split: str, read: Read) -> Examples:
    """Of a dataset that comes with a test split: that is test, whole; what train shares with it leaves train."""
    tally = Tally()
    if split == "test":
        return finished(dataset, split, list(read("test", tally)), tally)
    test = {example.group for example in read("test", Tally())}
    examples = list(read("train", tally))
    rest = leave_out(examples, test, tally, "in test")
    return divided(dataset, split, rest, tally)


def carved(dataset: FileDatasetConfig, test: int, split: str, read: Read) -> Examples:
    """Of a dataset that is one file: `test` groups of it are test, others validation."""
    tally = Tally()
    examples = list(read("train", tally))
    groups = {example.group for example in examples}
    if examples and len(groups) < test + dataset.validation + 1:
        raise UserError(
            f"dataset={dataset.name}: has {len(groups)} prompts ({tally}); dataset.validation={dataset.validation} and "
            f"dataset.test={test} leave none to train on"
        )
    taken = held_out(groups, dataset.seed, "test", test)
    if split == "test":
        return finished(dataset, split, leave_out(examples, groups - taken, tally, "in train"), tally)
    return divided(dataset, split, leave_out(examples, taken, tally, "in test"), tally)


def divided(dataset: FileDatasetConfig, split: str, examples: list[PreferenceExample], tally: Tally) -> Examples:
    """Train or validation, of the rows that are not test's."""
    groups = {example.group for example in examples}
    if examples and len(groups) <= dataset.validation:
        raise UserError(
            f"dataset.validation={dataset.validation}: leaves nothing to train on; train has {len(groups)} prompts "
            f"({tally})"
        )
    taken = held_out(groups, dataset.seed, "validation", dataset.validation)
    others, reason = (taken, "in validation") if split == "train" else (groups - taken, "in train")
    return finished(dataset, split, leave_out(examples, others, tally, reason), tally)


def leave_out(
    examples: list[PreferenceExample], groups: set[str], tally: Tally, reason: str
) -> list[PreferenceExample]:
    kept = [example for example in examples if example.group not in groups]
    if len(kept) < len(examples):
        tally.drop(reason, len(examples) - len(kept))
    return kept


def of_share(examples: Examples, share: list[float], key: str) -> Examples:
    """The rows whose group has its place, between 0 and 1, from share[0] up to share[1]; shares that do not overlap
    have no group in common, whatever else is in the data."""
    first, last = (round(bound * 2**64) for bound in share)
    kept = [example for example in examples if first <= drawn(0, "share", example.group) < last]
    if not kept:
        raise UserError(f"{key}={share}: none of the {len(examples)} training rows is in it; widen it")
    tally = copy.deepcopy(examples.tally)
    if len(kept) < len(examples):
        tally.drop("in another share", len(examples) - len(kept))
    return Examples(kept, tally, examples.split)


def finished(dataset: FileDatasetConfig, split: str, examples: list[PreferenceExample], tally: Tally) -> Examples:
    """In their order, within the limit."""
    if not examples:
        raise UserError(f"dataset={dataset.name}: nothing is left of its {split} split: {tally}")
    if dataset.shuffle:
        examples = sorted(examples, key=lambda example: (drawn(dataset.seed, "order", example.id), example.id))
    if split == "train" and dataset.max_train_samples is not None and len(examples) > dataset.max_train_samples:
        tally.drop("over the limit", len(examples) - dataset.max_train_samples)
        examples = examples[: dataset.max_train_samples]
    return Examples(examples, tally, split)
