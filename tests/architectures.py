"""Small models of the real architectures, freshly initialised, with their own kind of tokenizer, as on the hub."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    OPTConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from prefsweep.data.datasets.synthetic import reviews

ENCODERS = ("bert", "distilbert", "roberta", "deberta")
DECODERS = ("gpt2", "opt")


def save_classifier(kind: str, labels: tuple[str, ...], folder: Path) -> Path:
    """A sequence classifier with these labels, in their order; also read as a plain backbone."""
    tokenizer = bert_tokenizer(kind) if kind in ("bert", "distilbert", "deberta") else byte_tokenizer(kind)
    torch.manual_seed(3)
    shape = architecture(kind, len(tokenizer), id2label=dict(enumerate(labels)))
    AutoModelForSequenceClassification.from_config(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bert_tokenizer(kind: str) -> Any:
    """BERT's word pieces: [CLS] text [SEP], and token types where the architecture has them."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.train_from_iterator(texts(), trainers.WordPieceTrainer(vocab_size=500, special_tokens=specials))
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if kind != "distilbert" else [])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=64,
        model_input_names=names,
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), specials, strict=True)),
    )


def byte_tokenizer(kind: str) -> Any:
    """Byte-level pairs as RoBERTa's (<s> text </s>), GPT-2's (nothing around it) or OPT's (</s> text)."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        texts(), trainers.BpeTrainer(vocab_size=500, special_tokens=specials, initial_alphabet=alphabet)
    )
    if kind == "roberta":
        inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        named = {"bos_token": "<s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    elif kind == "opt":
        inner.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
        named = {"bos_token": "</s>", "pad_token": "<pad>"}
    else:
        named = {"bos_token": "</s>"}  # as GPT-2: no pad token at all
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=64, model_input_names=names, eos_token="</s>", **named
    )


def texts() -> list[str]:
    return reviews(200, seed=9, coherence=0.74)


SHAPE = {"num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}
WIDE = {**SHAPE, "hidden_size": 32, "intermediate_size": 48}


def architecture(kind: str, size: int, **settings: Any) -> Any:
    whole = {"vocab_size": size, **settings}
    match kind:
        case "bert":
            return BertConfig(max_position_embeddings=96, **WIDE, **whole)
        case "distilbert":
            return DistilBertConfig(
                dim=32, hidden_dim=48, n_layers=2, n_heads=2, max_position_embeddings=96, initializer_range=0.3, **whole
            )
        case "roberta":
            return RobertaConfig(max_position_embeddings=98, pad_token_id=1, type_vocab_size=1, **WIDE, **whole)
        case "deberta":
            relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
            return DebertaV2Config(max_position_embeddings=96, type_vocab_size=0, **relative, **WIDE, **whole)
        case "gpt2":
            ends = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": None}
            small = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 96, "initializer_range": 0.3}
            return GPT2Config(**{**small, **ends, **whole})
        case _:  # narrower inside than outside, as opt-350m
            ends = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
            narrow = {"hidden_size": 32, "word_embed_proj_dim": 16, "do_layer_norm_before": False, "ffn_dim": 48}
            small = {"max_position_embeddings": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "init_std": 0.3}
            return OPTConfig(**{**narrow, **small, **ends, **whole})
