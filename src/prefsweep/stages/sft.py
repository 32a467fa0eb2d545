"""sft: maximum likelihood of the preferred answers, with TRL's SFTTrainer.

The loss of a batch is the mean over its learned tokens, however the batch is split.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trl
from datasets import Dataset

from prefsweep.config import DatasetConfig, ModelConfig, SFTConfig, TrainingConfig
from prefsweep.data.sources import load
from prefsweep.data.views import IGNORED, answer_rows
from prefsweep.models.loading import load_policy, load_tokenizer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.training import Batch, SteadyTrainer, arguments, seeded, train, trimmed


class TokenTrainer(SteadyTrainer, trl.SFTTrainer):
    """SFTTrainer over rows of `input_ids` and `labels` that are tokenised already."""

    micro_batch: int

    def micro_batches(self, inputs: Batch) -> Iterator[tuple[Batch, float]]:
        learned = (inputs["labels"][:, 1:] != IGNORED).sum()
        for first in range(0, len(inputs["input_ids"]), self.micro_batch):
            part = {name: value[first : first + self.micro_batch] for name, value in inputs.items()}
            share = (part["labels"][:, 1:] != IGNORED).sum() / learned
            yield trimmed(part, ("input_ids", "labels", "attention_mask")), float(share)


def token_trainer(
    config: TrainingConfig, model: Any, tokenizer: Any, train_rows: Dataset, validation: Dataset, context: Context
) -> TokenTrainer:
    settings = arguments(config, context.runtime, len(train_rows), context.checkpoints)
    trainer = TokenTrainer(
        model=model,
        args=trl.SFTConfig(**settings, packing=False, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=train_rows,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
    trainer.micro_batch = context.runtime.micro_batch
    return trainer


def run(
    config: SFTConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    folder: Path,
    context: Context,
    policy: Path | None = None,
) -> dict[str, Any]:
    seeded(config)
    tokenizer = load_tokenizer(model, policy)
    train_rows, cut = answer_rows(load(dataset, "train"), tokenizer, config.max_length, config.learn)
    validation, _ = answer_rows(load(dataset, "validation"), tokenizer, config.max_length, config.learn)
    trainer = token_trainer(config, load_policy(model, policy), tokenizer, train_rows, validation, context)
    return train(trainer, config, folder, context, "sft") | cut.metrics()
