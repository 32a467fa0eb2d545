"""sft: maximum likelihood of the preferred completions, with TRL's SFTTrainer.

The loss of a batch is the mean over its learned tokens, however the batch is split.
"""

from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from prefsweep.config.schema import DatasetConfig, ModelConfig
from prefsweep.config.stages import SFTConfig
from prefsweep.data.views import completion_rows
from prefsweep.models.loading import load_learner, load_tokenizer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generation_callback import GenerateCompletionsCallback
from prefsweep.stages.trainers import TokenTrainer, load_rows
from prefsweep.stages.training import train


def run(
    config: SFTConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    folder: Path,
    context: Context,
    policy: Path | None = None,
) -> dict[str, Any]:
    set_seed(config.seed)
    tokenizer = load_tokenizer(model, policy)
    view = partial(completion_rows, completion_only_loss=config.completion_only_loss)
    rows, data_metrics = load_rows(view, dataset, tokenizer, config, context.runtime)
    trainer = TokenTrainer.build(config, load_learner(config, model, policy), tokenizer, rows, context)
    trainer.labels_per_row = 0.0 if dataset.pairs == "generated" else 1.0  # somebody chose the completion
    completions = GenerateCompletionsCallback(config, dataset, tokenizer, context)
    return train(trainer, config, folder, context, completions) | data_metrics
