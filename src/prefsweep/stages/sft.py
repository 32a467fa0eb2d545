"""sft: maximum likelihood of the preferred completions, with TRL's SFTTrainer.

The loss of a batch is the mean over its learned tokens, however the batch is split.
"""

from pathlib import Path
from typing import Any

from transformers import set_seed

from prefsweep.config.schema import DatasetConfig, ModelConfig
from prefsweep.config.stages import SFTConfig
from prefsweep.data.cache import Cache
from prefsweep.data.sources import load
from prefsweep.data.views import completion_rows
from prefsweep.models.loading import load_learner, load_tokenizer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generation_callback import GenerateCompletionsCallback
from prefsweep.stages.trainers import token_trainer
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
    examples = load(dataset, "train", tokenizer)
    view = (tokenizer, config.max_length, config.completion_only_loss, Cache.of(context.runtime))
    train_rows, truncation = completion_rows(examples, *view)
    data_metrics = truncation.metrics() | examples.metrics()
    del examples  # frees the texts
    held_out = load(dataset, "validation", tokenizer)
    validation, _ = completion_rows(held_out, *view)
    trainer = token_trainer(config, load_learner(config, model, policy), tokenizer, train_rows, validation, context)
    completions_callback = GenerateCompletionsCallback(config, held_out, tokenizer, context)
    return train(trainer, config, folder, context, "sft", completions_callback) | data_metrics
