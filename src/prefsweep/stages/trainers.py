"""TRL's trainers over rows that are tokenised already, and how their batches split."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trl
from datasets import Dataset

from prefsweep.config.schema import DatasetConfig, RuntimeConfig
from prefsweep.config.stage import PolicyTrainingConfig
from prefsweep.config.stages import ReferenceLogpsConfig
from prefsweep.data.cache import Cache
from prefsweep.data.sources import load
from prefsweep.data.truncation import Truncation
from prefsweep.data.views import IGNORED
from prefsweep.models.learned_head import replace_fused_head
from prefsweep.stages.generate_pairs import read_pairs
from prefsweep.stages.training import Batch, MicroBatchTrainerMixin, pair_parts, trimmed


def load_rows(
    view: Callable[..., tuple[Dataset, Truncation]],
    dataset: DatasetConfig,
    tokenizer: Any,
    config: PolicyTrainingConfig | ReferenceLogpsConfig,
    runtime: RuntimeConfig,
    pairs: Path | None = None,
) -> tuple[dict[str, Dataset], dict[str, int]]:
    """Return the rows of validation and train as `view` tokenises them, and the counts of what train has lost.

    They are the dataset's own, or those that the stage `generate_pairs` left in the folder `pairs`.
    """
    rows, metrics = {}, {}
    for split in ("validation", "train"):
        examples = load(dataset, split, tokenizer) if pairs is None else read_pairs(pairs, split)
        rows[split], truncation = view(
            examples, tokenizer, config.max_length, cache=Cache.of(runtime), prompt_tokens=config.prompt_tokens
        )
        metrics = truncation.metrics() | examples.metrics()
    return rows, metrics


class TokenisedTrainerMixin(MicroBatchTrainerMixin):
    """Mixed in before one of TRL's trainers, which then takes its rows as they are.

    They are tokenised, and carry the reference's log-probabilities where the loss needs them.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        replace_fused_head(self.model)

    def _prepare_dataset(self, dataset: Dataset, *rest: Any, **options: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *rest: Any, **options: Any) -> Dataset:
        return dataset


class TokenTrainer(TokenisedTrainerMixin, trl.SFTTrainer):
    """SFTTrainer over rows of `input_ids` and `labels`."""

    arguments_class = trl.SFTConfig
    own_arguments = {"max_length": None, "packing": False, "dataset_kwargs": {"skip_prepare_dataset": True}}

    def micro_batches(self, inputs: Batch) -> Iterator[tuple[Batch, float]]:
        learned = (inputs["labels"][:, 1:] != IGNORED).sum()
        for first in range(0, len(inputs["input_ids"]), self.micro_batch):
            part = {name: value[first : first + self.micro_batch] for name, value in inputs.items()}
            share = (part["labels"][:, 1:] != IGNORED).sum() / learned
            yield trimmed(part), float(share)


class PairTrainer(TokenisedTrainerMixin, trl.DPOTrainer):
    """DPOTrainer over pairs."""

    arguments_class = trl.DPOConfig
    own_arguments = {"max_length": None, "precompute_ref_log_probs": True}

    def micro_batches(self, inputs: Batch) -> Iterator[tuple[Batch, float]]:
        return pair_parts(inputs, self.micro_batch)
