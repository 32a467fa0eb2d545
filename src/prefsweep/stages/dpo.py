"""dpo: direct preference optimisation and its relatives, with TRL's DPOTrainer.

The reference is not in memory: its log-probabilities come from the stage `reference_logps`, which all runs with that
reference share. At the first step the policy is the reference, so the sigmoid loss is ln 2.
"""

from pathlib import Path
from typing import Any

from transformers import set_seed

from prefsweep.config.schema import DatasetConfig, ModelConfig
from prefsweep.config.stages import COUPLED_LOSSES, DPOConfig
from prefsweep.data.views import pair_rows
from prefsweep.models.loading import load_learner, load_tokenizer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generation_callback import GenerateCompletionsCallback
from prefsweep.stages.reference_logps import REFERENCE_COLUMNS, read_reference
from prefsweep.stages.trainers import PairTrainer, load_rows
from prefsweep.stages.training import train


def losses(config: DPOConfig) -> dict[str, Any]:
    """Return TRL's arguments for the loss; of cDPO all but its smoothing, which TRL does not accept as an argument."""
    return {
        "loss_type": ["robust" if is_cdpo(config) and loss == "sigmoid" else loss for loss in config.loss],
        "loss_weights": config.loss_weights,
        "beta": config.beta,
        "label_smoothing": 0.0 if is_cdpo(config) else config.label_smoothing,
        "f_divergence_type": config.f_divergence,
        "f_alpha_divergence_coef": config.f_alpha,
        "use_weighting": config.use_weighting,
        "ld_alpha": config.ld_alpha,
        "discopop_tau": config.discopop_tau,
    }


def is_cdpo(config: DPOConfig) -> bool:
    return "sigmoid" in config.loss and config.label_smoothing > 0


def smoothing(config: DPOConfig) -> float:
    """Return the ε' with which TRL computes the loss that the config's `label_smoothing` ε means.

    TRL's `sigmoid` ignores ε. Conservative DPO, −(1 − ε) log σ(βΔ) − ε log σ(−βΔ), is TRL's `robust`,
    −[(1 − ε') log σ(βΔ) − ε' log σ(−βΔ)] / (1 − 2ε'), at ε' = −ε / (1 − 2ε).
    """
    return -config.label_smoothing / (1 - 2 * config.label_smoothing) if is_cdpo(config) else config.label_smoothing


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
    rows, data_metrics = load_rows(pair_rows, dataset, tokenizer, config, context.runtime, pairs)
    for split, table in rows.items():
        for column, values in zip(REFERENCE_COLUMNS, read_reference(reference, split), strict=True):
            table = table.add_column(column, values)
        rows[split] = table
    trainer = PairTrainer.build(
        config,
        load_learner(config, model, policy),
        tokenizer,
        rows,
        context,
        **losses(config),
        disable_dropout=not config.lora,  # the model has none; TRL would turn off the adapters' dropout too
    )
    trainer.label_smoothing = smoothing(config)
    if trainer.micro_batch is None and set(config.loss) & set(COUPLED_LOSSES):
        trainer.micro_batch = config.batch_size  # whole: its pairs are coupled
    trainer.labels_per_row = 1.0 if pairs is None else 0.0  # generate_pairs has counted its own
    completions = GenerateCompletionsCallback(config, dataset, tokenizer, context)
    return train(trainer, config, folder, context, completions) | data_metrics
