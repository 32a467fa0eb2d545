"""pretrain: train a byte-pair tokenizer and a language model from scratch on the dataset's text."""

from pathlib import Path
from typing import Any

from transformers import set_seed

from prefsweep.config.architectures import positions
from prefsweep.config.schema import DatasetConfig, ModelConfig
from prefsweep.config.stages import PretrainConfig
from prefsweep.data.cache import Cache
from prefsweep.data.sources import load, pretraining_texts
from prefsweep.data.views import text_rows
from prefsweep.models.loading import init_from_scratch
from prefsweep.models.tokenizers import train_tokenizer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.trainers import token_trainer
from prefsweep.stages.training import train


def run(
    config: PretrainConfig, *, model: ModelConfig, dataset: DatasetConfig, folder: Path, context: Context
) -> dict[str, Any]:
    assert model.architecture is not None  # checked with the config
    set_seed(config.seed)
    cache = Cache.of(context.runtime)
    texts = pretraining_texts(dataset)
    shape = model.architecture
    tokenizer = train_tokenizer(texts, shape.vocab_size, positions(shape), shape.model_type)
    train_rows = text_rows(texts, tokenizer, config.max_length, cache)
    held_out = [example.prompt + (example.chosen or "") for example in load(dataset, "validation")]
    validation = text_rows(held_out, tokenizer, config.max_length, cache)
    fresh = init_from_scratch(shape, tokenizer)
    trainer = token_trainer(config, fresh, tokenizer, train_rows, validation, context)
    return train(trainer, config, folder, context, "pretrain")
