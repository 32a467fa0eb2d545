"""One loader a dataset: `(config, split, tokenizer) → examples`. A dataset's YAML names its own in `_target_`."""

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from prefsweep.config.schema import DatasetConfig, FileDatasetConfig, SyntheticReviewsConfig
from prefsweep.data.datasets import synthetic
from prefsweep.data.layout import local_files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.tally import Examples, Tally

SPLITS = ("train", "validation", "test")


def load(dataset: DatasetConfig, split: str, tokenizer: Any = None) -> Examples:
    """The examples of one split, always the same ones in the same order, with the tally of what was left out.

    The policy's `tokenizer` matters only where prompts are the first few tokens of a text; without it the prompt of
    such a row is empty and its chosen answer the whole text.
    """
    module, _, name = dataset._target_.rpartition(".")
    examples: Examples = getattr(import_module(module), name)(dataset, split, tokenizer)
    return examples


def files_read(dataset: DatasetConfig) -> dict[str, list[Path]] | None:
    """The local files that make a dataset what it is, by their names on the hub; None where it has no such layout.

    A folder may hold more, other subsets or a README, which then change no identity.
    """
    names = getattr(import_module(dataset._target_.rpartition(".")[0]), "names", None)
    if names is None or not isinstance(dataset, FileDatasetConfig) or dataset.path is None:
        return None
    return local_files(Path(dataset.path), names(dataset), f"dataset.path={dataset.path}")


def pretraining_texts(dataset: DatasetConfig) -> list[str]:
    """What a base that starts from nothing reads: the world's reviews, or the preferred texts of the train split."""
    if isinstance(dataset, SyntheticReviewsConfig):
        return synthetic.reviews(dataset.pretraining, seed=dataset.seed, coherence=dataset.coherence)
    return [example.prompt + (example.chosen or "") for example in load(dataset, "train")]


def synthetic_reviews(dataset: SyntheticReviewsConfig, split: str, tokenizer: Any) -> Examples:
    """Pairs of the embedded world. Train and validation are labelled with noise, as people label; test is clean.

    The world's prompts are short, so the streams of two splits share some: test keeps its own, then validation.
    """
    taken: set[str] = set()
    for name in ("test", "validation", "train"):
        rows = unseen_pairs(dataset, name, taken)
        if name == split:
            return Examples(rows[: dataset.max_train_samples] if split == "train" else rows, Tally(), split)
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
