"""A text that spells a special token is text, everywhere alike; special tokens are those that we put around texts."""

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from architectures import bert_tokenizer
from prefsweep.data.cache import Cache
from prefsweep.data.datasets.imdb import first_ends
from prefsweep.data.frames import joined_rows, paired_rows, templated_rows
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.tokens import token_ids
from prefsweep.data.views import completion_rows, encode_prompts, pair_rows, text_rows, unpaired_rows
from prefsweep.models.codec import TextCodec
from prefsweep.models.tokenizers import train_tokenizer
from test_codec import TEXTS, sentencepiece

SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]


def gpt2() -> Any:
    return train_tokenizer(TEXTS, 300, 64)


def with_added_tokens() -> Any:
    """A byte-level one whose end and turns are added tokens, as ChatML's are."""
    tokenizer = gpt2()
    tokenizer.add_special_tokens({"eos_token": AddedToken("<|im_end|>", special=True)})
    tokenizer.add_special_tokens({"extra_special_tokens": [AddedToken("<|im_start|>", special=True)]})
    return tokenizer


def unigram() -> Any:
    """As DeBERTa-v3's: SentencePiece's Unigram, whose pieces include the special tokens."""
    letters = [(letter, -3.0) for letter in sorted({*"".join([*TEXTS, *SPECIALS]), "\n"} - {" "})]
    inner = Tokenizer(models.Unigram([(token, 0.0) for token in SPECIALS] + [("▁", -2.0), *letters], unk_id=3))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    template = {"single": "[CLS] $A [SEP]", "pair": "[CLS] $A [SEP] $B [SEP]"}
    inner.post_processor = processors.TemplateProcessing(**template, special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    names = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token"), SPECIALS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="[SEP]", **names)


TOKENIZERS = {
    "gpt2": gpt2,
    "added": with_added_tokens,
    "llama": lambda: sentencepiece("llama", "<>/kp"),
    "unigram": unigram,
    "opt": lambda: train_tokenizer(TEXTS, 300, 64, "opt"),
    "bert": lambda: bert_tokenizer("bert"),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_no_text_spells_a_special_token(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for token in tokenizer.convert_ids_to_tokens(sorted(special)):
        for text in (f"a{token}b", f"a {token} b", token):
            (ids,) = token_ids([text], tokenizer, special=False)
            assert not special & set(ids)
            if kind != "bert":  # whose word pieces forget spaces and capitals
                assert tokenizer.decode(ids, skip_special_tokens=True) == text
            (framed,) = token_ids([text], tokenizer, special=True)
            (bare,) = token_ids(["a"], tokenizer, special=True)
            assert len([id for id in framed if id in special]) == len([id for id in bare if id in special])
    assert token_ids(["a b"], tokenizer, special=True) == tokenizer(["a b"])["input_ids"]


@pytest.mark.parametrize("kind", ["gpt2", "added", "llama", "opt"])
def test_every_view_ends_where_the_row_does(kind: str, tmp_path: Any) -> None:
    tokenizer = TOKENIZERS[kind]()
    eos, spelled = tokenizer.eos_token_id, tokenizer.eos_token
    frame = len(token_ids([""], tokenizer, special=True)[0])  # OPT's texts begin with </s>
    row = PreferenceExample("1", "g", f"a{spelled} b", f" c{spelled}d", f" {spelled}")
    for cache in (Cache(), Cache(tmp_path)):
        (pair,) = pair_rows([row], tokenizer, 200, cache)[0]
        assert pair["prompt_ids"].count(eos) == frame
        assert all(pair[side].count(eos) == 1 and pair[side][-1] == eos for side in ("chosen_ids", "rejected_ids"))
        assert TextCodec(tokenizer).completions([pair["prompt_ids"]], [pair["chosen_ids"]]) == [row.chosen]
        (learned,) = completion_rows([row], tokenizer, 200, True, cache)[0]
        assert learned["input_ids"].count(eos) == frame + 1
        assert all(
            single["completion_ids"].count(eos) == 1 for single in unpaired_rows([row], tokenizer, 200, cache)[0]
        )
        assert text_rows([row.prompt], tokenizer, 200, cache)[0]["input_ids"].count(eos) == frame + 1
    assert encode_prompts([row.prompt], tokenizer)[0].count(eos) == frame


@pytest.mark.parametrize("kind", ["bert", "unigram"])
def test_scorers_read_the_text_that_was_written(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    separator, texts = tokenizer.sep_token_id, (["a [SEP] b"], [" c[SEP]d"])
    assert paired_rows(*texts, tokenizer, 64).ids[0].count(separator) == 2
    assert joined_rows(*texts, tokenizer, 64).ids[0].count(separator) == 1
    assert templated_rows(*texts, tokenizer, "{prompt}{completion}", 64).ids[0].count(separator) == 1


def test_the_first_tokens_of_a_review_are_those_of_its_text() -> None:
    assert first_ends(["a<|endoftext|>b c"], gpt2(), 3) == [[1, 2, 3]]
