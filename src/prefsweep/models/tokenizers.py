"""Tokenizers from nothing: byte-level pairs, with the special tokens that each architecture's own tokenizer puts around
texts, so that a model from nothing is asked as the published one is."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Convention:
    """Special tokens in the order of their ids, what each is for, and what stands around one text and around two."""

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
CONVENTIONS = {
    "gpt2": Convention(  # the published one has no pad token; one of its own makes a wrong mask show
        ("<|endoftext|>", "<|pad|>"), {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|pad|>"}
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


def train_tokenizer(texts: Iterable[str], vocabulary: int, longest: int, model_type: str = "gpt2") -> Any:
    """Pairs of bytes learned from `texts`, as an architecture's own tokenizer would be; from no text, bytes alone."""
    like = CONVENTIONS[model_type]
    inner = Tokenizer(models.BPE())
    if like.lowercase:
        inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(like.specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    if like.one is not None:
        named = [(token, like.specials.index(token)) for token in like.specials]
        inner.post_processor = processors.TemplateProcessing(single=like.one, pair=like.two, special_tokens=named)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=longest,
        model_input_names=list(like.inputs),
        **{f"{role}_token": token for role, token in like.roles.items()},
    )
