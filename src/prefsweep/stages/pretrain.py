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
from prefsweep.stages.trainers import TokenTrainer
from prefsweep.stages.training import train


def run(
    config: PretrainConfig, *, model: ModelConfig, dataset: DatasetConfig, folder: Path, context: Context
) -> dict[str, Any]:
    assert model.architecture is not None  # checked with the config
    set_seed(config.seed)
    texts = pretraining_texts(dataset)
    shape = model.architecture
    tokenizer = train_tokenizer(texts, shape.vocab_size, positions(shape), shape.model_type)
    held_out = [example.prompt + (example.chosen or "") for example in load(dataset, "validation")]
    rows = {
        split: text_rows(part, tokenizer, config.max_length, Cache.of(context.runtime))
        for split, part in (("train", texts), ("validation", held_out))
    }
    trainer = TokenTrainer.build(config, init_from_scratch(shape, tokenizer), tokenizer, rows, context)
    return train(trainer, config, folder, context)
