"""Byte-level BPE tokenizers trained here, with the special tokens that each architecture's own tokenizer puts around
texts, so that a randomly initialised model reads texts in the same form as the one on the hub."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Convention:
    """Special tokens in the order of their ids, their roles, and the templates of one text and of two."""

    specials: tuple[str, ...]
    roles: dict[str, str]
    one: str | None = None
    two: str | None = None
    lowercase: bool = False
    inputs: tuple[str, ...] = field(default=("input_ids", "attention_mask"))


BERT = Convention(
    ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    one="[CLS] $A [SEP]",
    two="[CLS] $A [SEP] $B:1 [SEP]:1",
    lowercase=True,
    inputs=("input_ids", "attention_mask", "token_type_ids"),
)
# One token ends a text, and nothing stands around it; a separate pad token exposes a wrong mask.
PLAIN = Convention(("<|endoftext|>", "<|pad|>"), {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|pad|>"})
CONVENTIONS = {
    **dict.fromkeys(("gpt2", "llama", "qwen3", "gpt_neox"), PLAIN),
    "gemma3_text": Convention(
        ("<pad>", "<eos>", "<bos>", "<unk>"),
        {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"},
        one="<bos> $A",
        two="<bos> $A <bos> $B",
    ),
    "opt": Convention(
        ("<s>", "<pad>", "</s>", "<unk>"),
        {"bos": "</s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>"},
        one="</s> $A",
        two="</s> $A </s> $B",
    ),
    "bert": BERT,
    "distilbert": Convention(BERT.specials, BERT.roles, BERT.one, "[CLS] $A [SEP] $B [SEP]", lowercase=True),
    "deberta-v2": Convention(
        ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"),
        {**BERT.roles, "bos": "[CLS]", "eos": "[SEP]"},
        one=BERT.one,
        two=BERT.two,
        inputs=BERT.inputs,
    ),
    "roberta": Convention(
        ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"},
        one="<s> $A </s>",
        two="<s> $A </s> </s> $B </s>",
    ),
}


def train_tokenizer(texts: Iterable[str], vocabulary: int, max_length: int, model_type: str = "gpt2") -> Any:
    """Train a byte-level BPE with an architecture's special tokens; without texts its tokens are the bytes."""
    convention = CONVENTIONS[model_type]
    tokenizer = Tokenizer(models.BPE())
    if convention.lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(convention.specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if convention.one is not None:
        ids = [(token, index) for index, token in enumerate(convention.specials)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=convention.one, pair=convention.two, special_tokens=ids
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=list(convention.inputs),
        **{f"{role}_token": token for role, token in convention.roles.items()},
    )
