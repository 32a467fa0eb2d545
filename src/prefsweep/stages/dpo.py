"""dpo: direct preference optimisation and its relatives, with TRL's DPOTrainer.

The reference is not in memory: its log-probabilities come from the stage `reference_logps`, which all runs with that
reference share. At the first step the policy is the reference, so the sigmoid loss is ln 2.
"""

from pathlib import Path
from typing import Any

import trl
from transformers import set_seed

from prefsweep.config.schema import DatasetConfig, ModelConfig
from prefsweep.config.stages import DPOConfig
from prefsweep.data.cache import Cache
from prefsweep.data.sources import load
from prefsweep.data.views import pair_rows
from prefsweep.models.loading import load_learner, load_tokenizer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate_pairs import load_pairs
from prefsweep.stages.generation_callback import GenerateCompletionsCallback
from prefsweep.stages.reference_logps import REFERENCE_COLUMNS, read_reference
from prefsweep.stages.trainers import PairTrainer
from prefsweep.stages.training import arguments, train


def losses(config: DPOConfig) -> dict[str, Any]:
    """Return TRL's arguments for the loss."""
    return {
        "loss_type": list(config.loss),
        "loss_weights": config.loss_weights,
        "beta": config.beta,
        "label_smoothing": config.label_smoothing,
        "f_divergence_type": config.f_divergence,
        "f_alpha_divergence_coef": config.f_alpha,
        "use_weighting": config.use_weighting,
        "ld_alpha": config.ld_alpha,
        "discopop_tau": config.discopop_tau,
    }


def run(
    config: DPOConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    folder: Path,
    context: Context,
    reference: Path,
    policy: Path | None = None,
    pairs: Path | None = None,
) -> dict[str, Any]:
    set_seed(config.seed)
    tokenizer = load_tokenizer(model, policy)
    rows, data_metrics, completions_callback = {}, {}, None
    for split in ("validation", "train"):
        examples = load_pairs(dataset, split, tokenizer, pairs)
        if split == "validation":  # the dataset's prompts, as in sft and ppo, also with generated pairs
            held_out = examples if pairs is None else load(dataset, split, tokenizer)
            completions_callback = GenerateCompletionsCallback(config, held_out, tokenizer, context)
        table, truncation = pair_rows(examples, tokenizer, config.max_length, Cache.of(context.runtime))
        for column, values in zip(REFERENCE_COLUMNS, read_reference(reference, split, len(table)), strict=True):
            table = table.add_column(column, values)
        rows[split], data_metrics = table, truncation.metrics() | examples.metrics()
    del examples, held_out  # frees the texts
    settings = arguments(config, context.runtime, len(rows["train"]), context.checkpoints)
    trainer = PairTrainer(
        model=load_learner(config, model, policy),
        args=trl.DPOConfig(
            **settings,
            **losses(config),
            precompute_ref_log_probs=True,
            disable_dropout=not config.lora,  # the model has none; TRL would turn off the adapters' dropout too
        ),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
    )
    trainer.labels_per_row = 1.0 if pairs is None else 0.0  # generate_pairs has counted its own
    trainer.micro_batch = context.runtime.micro_batch
    return train(trainer, config, folder, context, "dpo", completions_callback) | data_metrics
