"""One loader a dataset: `(config, split) → examples`. A dataset's YAML names its own in `_target_`."""

import json
import random
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from prefsweep.config import DatasetConfig, LocalPairsConfig, SyntheticReviewsConfig
from prefsweep.data import synthetic
from prefsweep.data.schema import PreferenceExample
from prefsweep.errors import UserError

SPLITS = ("train", "validation", "test")


def load(dataset: DatasetConfig, split: str, tokenizer: Any = None) -> Sequence[PreferenceExample]:
    """The examples of one split, always the same ones in the same order.

    The policy's `tokenizer` matters only where prompts are the first few tokens of a text; without it the prompt of
    such a row is empty and its chosen answer the whole text.
    """
    module, _, name = dataset._target_.rpartition(".")
    examples: Sequence[PreferenceExample] = getattr(import_module(module), name)(dataset, split, tokenizer)
    return examples


def pretraining_texts(dataset: DatasetConfig) -> list[str]:
    """What a base that starts from nothing reads: the world's reviews, or the preferred texts of the train split."""
    if isinstance(dataset, SyntheticReviewsConfig):
        return synthetic.reviews(dataset.pretraining, seed=dataset.seed, coherence=dataset.coherence)
    return [example.prompt + (example.chosen or "") for example in load(dataset, "train")]


def synthetic_reviews(dataset: SyntheticReviewsConfig, split: str, tokenizer: Any) -> list[PreferenceExample]:
    """Pairs of the embedded world. Train and validation are labelled with noise, as people label; test is clean.

    The world's prompts are short, so the streams of two splits share some: test keeps its own, then validation.
    """
    taken: set[str] = set()
    for name in ("test", "validation", "train"):
        rows = unseen_pairs(dataset, name, taken)
        if name == split:
            return rows
        taken |= {row.group for row in rows}
    raise ValueError(f"no such split: {split}")


def unseen_pairs(dataset: SyntheticReviewsConfig, split: str, taken: set[str]) -> list[PreferenceExample]:
    """The first rows of a split's own stream whose prompts are not `taken`."""
    wanted = {"train": dataset.size, "validation": dataset.validation, "test": dataset.test}[split]
    seed = dataset.seed * 1_000 + 1 + SPLITS.index(split)
    noise = 0.0 if split == "test" else dataset.noise
    drawn, rows = wanted, list[PreferenceExample]()
    while len(rows) < wanted:  # fewer rows of a stream are a prefix of more
        drawn += wanted // 2 + 1
        rows = [row for row in stream(drawn, seed, dataset.coherence, noise) if row.group not in taken]
    return rows[:wanted]


@lru_cache(maxsize=8)
def stream(count: int, seed: int, coherence: float, noise: float) -> tuple[PreferenceExample, ...]:
    """Remembered: a stage that reads two splits draws the third only once."""
    return tuple(synthetic.preferences(count, seed=seed, coherence=coherence, noise=noise))


def local_pairs(dataset: LocalPairsConfig, split: str, tokenizer: Any) -> list[PreferenceExample]:
    """A jsonl file with prompt, chosen, rejected. Rows of one prompt share a split, whatever their number."""
    examples = read_pairs(Path(dataset.path))
    groups = sorted({example.group for example in examples})
    random.Random(dataset.seed).shuffle(groups)
    if len(groups) < dataset.validation + dataset.test + 1:
        raise UserError(
            f"dataset.path={dataset.path}: has {len(groups)} prompts; dataset.validation={dataset.validation} and "
            f"dataset.test={dataset.test} leave none to train on"
        )
    test, rest = groups[: dataset.test], groups[dataset.test :]
    members = {
        "test": set(test),
        "validation": set(rest[: dataset.validation]),
        "train": set(rest[dataset.validation :]),
    }
    return [example for example in examples if example.group in members[split]]


def read_pairs(path: Path) -> list[PreferenceExample]:
    examples = []
    with path.open() as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                examples.append(read_pair(line, f"{path}, line {number}", f"{path.stem}-{number}"))
    return examples


def read_pair(line: str, where: str, name: str) -> PreferenceExample:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    for column in ("prompt", "chosen", "rejected"):
        if not isinstance(row, dict) or not isinstance(row.get(column), str):
            raise UserError(f"{where}: needs the column {column} with a text in it")
    return PreferenceExample(name, row["prompt"], row["prompt"], row["chosen"], row["rejected"])
