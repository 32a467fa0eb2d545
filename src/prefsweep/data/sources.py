"""The one way to a dataset's examples. What was read is held for the life of the process, so every file is read once.

A dataset's YAML names in `_target_` the function that makes its `Splits` of its config.
"""

import dataclasses
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefsweep.config.schema import DatasetConfig, FileDatasetConfig, SyntheticReviewsConfig
from prefsweep.data.datasets import synthetic
from prefsweep.data.layout import local_files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import SPLITS, Splits, of_share
from prefsweep.data.tally import Examples, Tally
from prefsweep.pipeline.files import files_under
from prefsweep.pipeline.imports import import_object

_loaded: dict[str, Splits] = {}


def load(dataset: DatasetConfig, split: str, tokenizer: Any = None) -> Examples:
    """Return the examples of one split, always the same ones in the same order, with the tally of what was dropped.

    The policy's `tokenizer` matters only where prompts are the first few tokens of a text; without it the prompt of
    such a row is empty and its chosen completion the whole text.
    """
    examples = load_splits(dataset).for_tokenizer(tokenizer)[split]
    if split == "train" and dataset.share is not None:
        examples = of_share(examples, dataset.share, dataset.name)
    if split == "train" and dataset.max_train_samples is not None:
        return examples.first(dataset.max_train_samples)
    return examples


def load_ranked(dataset: DatasetConfig, split: str) -> Examples:
    """Return the pairs of a split from which a scorer learns, and on which it is tested.

    Of labelled texts the first positive one and the first negative one are a pair, and so on, both from the share of
    the prompts that `dataset.share` leaves. A longer list of either label is cut.
    """
    examples = load(dataset, split)
    if dataset.pairs == "dataset":
        return examples
    labelled = {label: [row for row in examples if row.label is label] for label in (True, False)}
    if not any(labelled.values()):
        return examples
    pairs = zip(labelled[True], labelled[False], strict=False)
    rows = (replace(good, id=f"{good.id}:{bad.id}", rejected=bad.chosen, label=None) for good, bad in pairs)
    return Examples(rows, examples.tally, split)


def load_splits(dataset: DatasetConfig) -> Splits:
    """Return the splits of a dataset whatever its `share` and `max_train_samples`: the same object for as long as the
    process lives or `release_splits` is called, unless a file has changed on disk."""
    path = getattr(dataset, "path", None)
    stats = [(file, file.stat()) for file in files_under(Path(path))] if path and Path(path).exists() else []
    files = [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats]
    key = repr((dataclasses.replace(dataset, share=None, max_train_samples=None), files))
    if key not in _loaded:
        _loaded[key] = import_object(dataset._target_)(dataset)
    return _loaded[key]


def release_splits() -> None:
    """Release the memory of all datasets; they are read again when they are next asked for."""
    _loaded.clear()


def files_read(dataset: DatasetConfig) -> dict[str, list[Path]] | None:
    """Return the local files that a dataset is read from, by their names on the hub; None if it has no such layout.

    A folder may hold more, other subsets or a README, which are no part of the dataset's identity.
    """
    names = getattr(sys.modules[import_object(dataset._target_).__module__], "file_names", None)
    if names is None or not isinstance(dataset, FileDatasetConfig) or dataset.path is None:
        return None
    return local_files(Path(dataset.path), names(dataset), f"dataset.path={dataset.path}")


def pretraining_texts(dataset: DatasetConfig) -> list[str]:
    """Return what a base model is pretrained on: the world's reviews, or the chosen texts of the train split."""
    if isinstance(dataset, SyntheticReviewsConfig):
        return synthetic.reviews(dataset.pretraining, seed=dataset.seed, coherence=dataset.coherence)
    return [example.prompt + (example.chosen or "") for example in load(dataset, "train")]


class SyntheticSplits(Splits):
    """Pairs of the embedded world. Train and validation are labelled with noise, as people label; test is clean.

    Each split has a random stream of its own. The world's prompts are short, so that streams have some in common: those
    stay in test before validation, and in validation before train.
    """

    def __init__(self, dataset: SyntheticReviewsConfig):
        super().__init__()
        self.dataset = dataset

    def compute(self, split: str) -> Examples:
        reserved = SPLITS[SPLITS.index(split) + 1 :]
        taken = {row.group for name in reserved for row in self[name]}
        return Examples(self.draw(split, taken), Tally(), split)

    def draw(self, split: str, taken: set[str]) -> list[PreferenceExample]:
        """Return the first rows of a split's stream whose prompts are not `taken`."""
        dataset = self.dataset
        count = {"train": dataset.size, "validation": dataset.validation, "test": dataset.test}[split]
        seed = dataset.seed * 1_000 + 1 + SPLITS.index(split)
        if split == "train" and dataset.sample_seed is not None:
            seed = (dataset.sample_seed + 1) * 1_000_000 + seed
        noise = 0.0 if split == "test" else dataset.noise
        drawn, rows = count, list[PreferenceExample]()
        while len(rows) < count:  # fewer rows of a stream are a prefix of more
            drawn += count // 2 + 1
            stream = synthetic.preferences(drawn, seed=seed, coherence=dataset.coherence, noise=noise)
            rows = [row for row in stream if row.group not in taken]
        return rows[:count]
