"""TRL's trainers over rows that are tokenised already, and how their batches split."""

from collections.abc import Iterator
from typing import Any

import trl
from datasets import Dataset

from prefsweep.config.stages import TrainingConfig
from prefsweep.data.views import IGNORED
from prefsweep.models.learned_head import replace_fused_head
from prefsweep.pipeline.stage import Context
from prefsweep.stages.training import Batch, MicroBatchTrainerMixin, arguments, trimmed

SEQUENCES = ("input_ids", "attention_mask", "completion_mask")


class TokenTrainer(MicroBatchTrainerMixin, trl.SFTTrainer):
    """SFTTrainer over tokenised rows of `input_ids` and `labels`."""

    micro_batch: int

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        replace_fused_head(self.model)

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


class PairTrainer(MicroBatchTrainerMixin, trl.DPOTrainer):
    """DPOTrainer over tokenised pairs that carry the reference's log-probabilities."""

    micro_batch: int

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        replace_fused_head(self.model)

    def _prepare_dataset(self, dataset: Dataset, *rest: Any, **options: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *rest: Any, **options: Any) -> Dataset:
        return dataset

    def micro_batches(self, inputs: Batch) -> Iterator[tuple[Batch, float]]:
        """Split by pairs: TRL stacks chosen on rejected, so row i and row pairs + i are one pair."""
        pairs = len(inputs["input_ids"]) // 2
        for first in range(0, pairs, self.micro_batch):
            last = min(first + self.micro_batch, pairs)
            rows = [*range(first, last), *range(pairs + first, pairs + last)]
            part = {name: value[rows if name in SEQUENCES else slice(first, last)] for name, value in inputs.items()}
            yield trimmed(part, SEQUENCES), (last - first) / pairs
