"""pretrain: a base from nothing, on the dataset's own text: first its byte-pair tokenizer, then the language model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from prefsweep.config import DatasetConfig, ModelConfig, PretrainConfig
from prefsweep.data.sources import load, pretraining_texts
from prefsweep.data.views import text_rows
from prefsweep.models.loading import from_nothing
from prefsweep.pipeline.stage import Context
from prefsweep.stages.trainers import token_trainer
from prefsweep.stages.training import seeded, train

END, PAD = "<|endoftext|>", "<|pad|>"


def train_tokenizer(texts: Iterable[str], vocabulary: int, longest: int) -> Any:
    """A byte-level BPE tokenizer like GPT-2's, with a pad token of its own."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END, PAD], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=END, eos_token=END, pad_token=PAD, model_max_length=longest
    )


def run(
    config: PretrainConfig, *, model: ModelConfig, dataset: DatasetConfig, folder: Path, context: Context
) -> dict[str, Any]:
    assert model.architecture is not None  # checked with the config
    seeded(config)
    texts = pretraining_texts(dataset)
    tokenizer = train_tokenizer(texts, model.architecture.vocab_size, model.architecture.n_positions)
    train_rows = text_rows(texts, tokenizer, config.max_length)
    held_out = [example.prompt + (example.chosen or "") for example in load(dataset, "validation")]
    validation = text_rows(held_out, tokenizer, config.max_length)
    fresh = from_nothing(model.architecture, tokenizer)
    trainer = token_trainer(config, fresh, tokenizer, train_rows, validation, context)
    return train(trainer, config, folder, context, "pretrain")
