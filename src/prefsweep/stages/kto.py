"""kto: Kahneman-Tversky optimisation of single completions, desirable or undesirable, with TRL's KTOTrainer.

Its loss is eq. 8 of Ethayarajh et al. 2024 (arXiv 2402.01306). A pair gives two rows, its chosen completion as
desirable and its rejected one as undesirable. The reference point z_0 of a batch is estimated as TRL does, from
mismatched completions: each prompt with the completion of the row before it in the batch.

Departures from TRL:
- the order of the rows is drawn once from the seed, and every epoch repeats it: in the dataset's order the two
  completions of a pair would be neighbours, and a mismatched completion would answer its prompt;
- z_0 is estimated over the effective batch before that is split, so the step does not depend on what fits in memory;
- a validation batch has `batch_size` rows whatever fits in memory, because each has a z_0 of its own;
- the reference is not in memory: before the first step, when the policy is the reference, this stage computes its
  log-probabilities of every row, in chunks that survive a kill.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import trl
from datasets import Dataset
from torch import Tensor
from transformers import set_seed

from prefsweep.config.schema import DatasetConfig, ModelConfig
from prefsweep.config.stages import KTOConfig
from prefsweep.data.sources import load
from prefsweep.data.views import unpaired_rows
from prefsweep.models.flops import forward_flops
from prefsweep.models.loading import load_learner, load_tokenizer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generation_callback import GenerateCompletionsCallback
from prefsweep.stages.micro_batches import Batch, trimmed
from prefsweep.stages.reference_logps import reference_logps
from prefsweep.stages.trainers import TokenisedTrainerMixin, load_rows
from prefsweep.stages.training import train

MISMATCHED = "KL_completion_ids"
REFERENCE_COLUMNS = ("ref_logps", "ref_KL_logps")
VALIDATION_SEED = 0  # all seeds validate on the same mismatched completions


class UnpairedTrainer(TokenisedTrainerMixin, trl.KTOTrainer):
    """KTOTrainer over single completions, each with a mismatched one."""

    arguments_class = trl.KTOConfig
    own_arguments = {"precompute_ref_log_probs": True}

    def micro_batches(self, inputs: Batch) -> Iterator[tuple[Batch, float]]:
        """Split by rows. TRL would estimate z_0 from each part: `ref_KL_logps` carries the batch's estimate instead."""
        rows, kl = len(inputs["label"]), self.batch_kl(inputs)
        for part in self.rows_of_parts(inputs["attention_mask"]):
            batch = {name: value[part] for name, value in inputs.items() if not name.startswith("KL_")}
            batch["ref_KL_logps"] = -kl.expand(len(batch["label"]))
            yield trimmed(batch), len(batch["label"]) / rows

    def validation_parts(self, inputs: Batch) -> Iterable[Batch]:
        return (part for part, _ in self.micro_batches(inputs))

    def weights(self, inputs: Batch) -> Mapping[str, float]:
        tokens, is_chosen = inputs["completion_mask"].sum(-1), inputs["label"].bool()
        weights = {"": float(len(tokens)), "entropy": float(tokens.sum())}
        for side, rows in (("chosen", is_chosen), ("rejected", ~is_chosen)):
            number = float(rows.sum())
            weights |= {f"rewards/{side}": number, f"logps/{side}": number, f"logits/{side}": float(tokens[rows].sum())}
        return weights

    def batch_kl(self, inputs: Batch) -> Tensor:
        """Return [] the mean log-ratio of a batch's mismatched completions: z_0 before it is clamped at 0."""
        ratios = []
        mismatched = {name: value for name, value in inputs.items() if name.startswith("KL_")}
        for part in self.rows_of_parts(inputs["KL_attention_mask"]):
            batch = trimmed({name.removeprefix("KL_"): value[part] for name, value in mismatched.items()})
            with self.compute_loss_context_manager():
                logps = self._compute_kl_logps(self.model, {f"KL_{name}": batch[name] for name in batch})
            ratios.append(logps - inputs["ref_KL_logps"][part])
        return torch.cat(ratios).mean()

    def _compute_kl_logps(self, model: Any, batch: Batch) -> Tensor:
        """Return zeros for a part of a batch, from which TRL subtracts the `ref_KL_logps` of `micro_batches`."""
        if "KL_input_ids" not in batch:
            return torch.zeros_like(batch["ref_KL_logps"])
        logps: Tensor = super()._compute_kl_logps(model, batch)
        return logps

    def count(self, inputs: Batch) -> None:
        super().count(inputs)
        self.cost.add(flops=forward_flops(self.model, int(inputs["KL_attention_mask"].sum())))


def run(
    config: KTOConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    folder: Path,
    context: Context,
    policy: Path | None = None,
    pairs: Path | None = None,
) -> dict[str, Any]:
    set_seed(config.seed)
    tokenizer = load_tokenizer(model, policy)
    rows, data_metrics = load_rows(unpaired_rows, dataset, tokenizer, config, context.runtime, pairs)
    orders = {}
    for split, seed in (("validation", VALIDATION_SEED), ("train", config.seed)):
        orders[split] = np.random.default_rng(seed).permutation(len(rows[split]))
        rows[split] = with_mismatched(rows[split], orders[split], config.batch_size)
    trainer = unpaired_trainer(config, load_learner(config, model, policy), tokenizer, rows, context)
    for split, table in rows.items():
        logps = reference_logps(trainer, table, split, context)
        for column, values in zip(REFERENCE_COLUMNS, logps, strict=True):
            table = table.add_column(column, values)
        rows[split] = table.select(orders[split])
    trainer.train_dataset, trainer.eval_dataset = rows["train"], rows["validation"]
    if pairs is None:  # generate_pairs has counted the labels of its own
        trainer.labels_per_row = len(load(dataset, "train", tokenizer)) / len(rows["train"])
    completions = GenerateCompletionsCallback(config, dataset, tokenizer, context)
    return train(trainer, config, folder, context, completions) | data_metrics


def with_mismatched(rows: Dataset, order: np.ndarray, batch_size: int) -> Dataset:
    """Add to each row the completion of the row before it in its batch: (x_1, y_n), (x_2, y_1), …, (x_n, y_{n−1}).

    The batches are consecutive rows in `order`; the rows themselves stay where they are.
    """
    previous = np.empty_like(order)
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        previous[batch] = np.roll(batch, 1)
    return rows.add_column(MISMATCHED, rows.data.column("completion_ids").take(pa.array(previous)))


def unpaired_trainer(
    config: KTOConfig, model: Any, tokenizer: Any, rows: dict[str, Dataset], context: Context
) -> UnpairedTrainer:
    return UnpairedTrainer.build(
        config,
        model,
        tokenizer,
        rows,
        context,
        per_device_eval_batch_size=config.batch_size,
        max_length=config.max_length,  # cuts a prompt with a mismatched completion; the rows fit
        beta=config.beta,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
        disable_dropout=not config.lora,  # the model has none; TRL would turn off the adapters' dropout too
    )
