"""From tokens to the texts that scorers read: where completions end, and tokenizers that are not byte-level."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from architectures import DECODERS, bert_tokenizer, byte_tokenizer
from ppo_toy import tiny
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.tokens import splits_at_spaces
from prefsweep.data.truncation import Truncation
from prefsweep.data.views import encode, pair_rows
from prefsweep.models.codec import TextCodec
from prefsweep.models.decoding import sample, uniforms
from prefsweep.models.tokenizers import train_tokenizer

TEXTS = [
    "User: Is the plot good?\nAssistant: I am sure it is.",
    "The script was witty, the ending dull.",
    "a b c d e f g",
]
SPECIALS = ["<unk>", "<s>", "</s>", "<pad>"]


def sentencepiece(style: str, more: str = "") -> Any:
    """A tokenizer as Llama 2 (a normaliser puts ▁ before a text) or T5 (a pre-tokenizer does) have it.

    It knows the characters of `TEXTS` and those of `more`.
    """
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    if style == "llama":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        inner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        inner.decoder = decoders.Sequence(steps)
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        inner.decoder = decoders.Metaspace(prepend_scheme="always")
    alphabet = sorted({*"".join(TEXTS).replace(" ", "▁"), *more})
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIALS, initial_alphabet=alphabet)
    inner.train_from_iterator(TEXTS, trainer)
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIALS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def test_tokenizers_say_whether_they_split_at_spaces() -> None:
    assert all(splits_at_spaces(tokenizer) for tokenizer in (*map(byte_tokenizer, DECODERS), bert_tokenizer("bert")))
    assert splits_at_spaces(sentencepiece("t5")) and not splits_at_spaces(sentencepiece("llama"))


@pytest.mark.parametrize("style", ["llama", "t5"])
def test_a_completion_begins_with_one_space_in_any_tokenizer(style: str) -> None:
    tokenizer = sentencepiece(style)
    rows = [PreferenceExample("1", "g", "User: Is it good?\nAssistant:", " I am sure.", " It is dull.")]
    ((prompt, completions),) = encode(rows, ("chosen", "rejected"), tokenizer, cut := Truncation())
    codec = TextCodec(tokenizer)
    for ids, text in zip(completions, (rows[0].chosen, rows[0].rejected), strict=True):
        whole = tokenizer(rows[0].prompt + str(text))["input_ids"]
        assert prompt + ids == [*whole, tokenizer.eos_token_id]
        assert codec.completions([prompt], [ids]) == [text]
    assert codec.prompts([prompt]) == [rows[0].prompt]
    assert cut.merged == 0
    assert pair_rows(rows, tokenizer, 96)[1].merged == 0


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_completion_ends_where_the_other_side_would_speak(kind: str) -> None:
    tokenizer = train_tokenizer(TEXTS, 300, 64) if kind == "gpt2" else sentencepiece("llama")
    codec = TextCodec(tokenizer, ["\nUser:", "\nAssistant:"])
    prompt = tokenizer("User: Is it good?\nAssistant:", add_special_tokens=False)["input_ids"]
    whole = tokenizer("User: Is it good?\nAssistant: I am sure.\nUser: a b", add_special_tokens=False)["input_ids"]
    completion = whole[len(prompt) :]
    ends = [length for length in range(1, len(completion) + 1) if codec.has_ended(completion[:length])]
    stopped = completion[: ends[0]]
    assert codec.completions([prompt], [stopped]) == [" I am sure."]
    assert tokenizer.decode(prompt + stopped).endswith("\nUser:")
    assert not TextCodec(tokenizer).has_ended(stopped) and TextCodec(tokenizer).has_ended([tokenizer.eos_token_id])
    assert codec.completions([prompt], [completion[: ends[0] - 1]])[0].startswith(" I am sure.")


def test_sampling_stops_at_the_string_and_before_it_nothing_changes() -> None:
    """Completions with stop strings are those without, each up to the token that completes a string."""

    class Letters:
        eos_token_id, pad_token_id = 0, 1

        def __len__(self) -> int:
            return 12

        def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
            return {"input_ids": [[ord(letter) - ord("a") for letter in text.strip()] for text in texts]}

        def batch_decode(self, rows: list[list[int]], **_: Any) -> list[str]:
            return ["".join(map(chr, (ord("a") + token for token in row))) for row in rows]

        def decode(self, row: list[int], **_: Any) -> str:
            return self.batch_decode([row])[0]

    codec = TextCodec(Letters(), ["de", "h"])
    model, prompts = tiny("gpt2").eval(), [[2, 3], [4], [5, 6, 7]] * 8
    numbers = uniforms([str(row) for row in range(len(prompts))], 20, 0)
    free = sample(model, prompts, numbers, 0, 1, 1.0)
    stopped = sample(model, prompts, numbers, temperature=1.0, **codec.sampling)
    ended = 0
    for prompt, plain, short in zip(prompts, free, stopped, strict=True):
        assert short == plain[: len(short)]
        text, rest = Letters().decode(short), Letters().decode(plain)
        cuts = [rest.find(string) + len(string) for string in ("de", "h") if string in rest]
        assert len(text) == min([len(rest), *cuts])
        ended += codec.has_ended(short)
        assert not [string for string in ("de", "h") if string in codec.completions([prompt], [short])[0]]
    assert ended > 8
    assert torch.equal(numbers, uniforms([str(row) for row in range(len(prompts))], 20, 0))
