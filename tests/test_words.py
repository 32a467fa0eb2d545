"""Ids from memory are those of the tokenizer itself, whatever the text."""

import random
from typing import Any

import pytest

from architectures import bert_tokenizer, byte_tokenizer
from prefsweep.data import words
from prefsweep.data.datasets.synthetic import reviews

TRAPS = [
    "",
    " ",
    "  two spaces  and\n\nlines\t\ttabs \n",
    "don't we'll I'd it's 'twas '' '",
    "O'Neil's",
    "\n\nHuman: What\u2019s “that” — a dash… or é, ü, ñ?\n\nAssistant: 3.14 costs £5, ½ off ²",
    "<|endoftext|> in the midst</s>of it <pad>",
    "control \x1c\x1d\x85\xa0\u2003\u200b\ufeff white",
    "日本語 русский ελληνικά עברית हिन्दी 🙂👍🏽 \U0001f9d1\u200d\U0001f680",
    "a" * 300,
    "...!?!?...",
    "x1y2z3 42nd",
    "\r\n windows \r\n",
]


@pytest.fixture(params=["gpt2", "opt", "roberta", "world"])
def fast(request: pytest.FixtureRequest, tokenizer: Any) -> Any:
    return tokenizer if request.param == "world" else byte_tokenizer(request.param)


@pytest.mark.parametrize("special", [True, False])
def test_the_ids_are_the_tokenizers_own(fast: Any, special: bool) -> None:
    rng = random.Random(0)
    pieces = [*TRAPS, *reviews(40, seed=1, coherence=0.74)]
    mixed = ["".join(rng.choices([*pieces, " ", "\n", "'"], k=4)) for _ in range(300)]
    noise = [
        "".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x3000)])) for _ in range(40)) for _ in range(300)
    ]
    texts = [*pieces, *mixed, *noise]
    assert words.splits_as_gpt2(fast)
    for _ in range(2):  # learned, then known
        assert words.token_ids(texts, fast, special) == fast(texts, add_special_tokens=special)["input_ids"]


def test_most_text_needs_no_merge_again(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = reviews(200, seed=3, coherence=0.74)
    words.token_ids(texts, tokenizer, special=True)
    made = words._made[tokenizer]
    assert made is not None
    monkeypatch.setattr(made, "tokenizer", None)  # whoever asks it now fails
    assert words.token_ids(texts[::-1], tokenizer, special=True)[0]


def test_what_is_known_is_bounded(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "KNOWN", 20)
    made, texts = words.TextCodec(tokenizer), reviews(50, seed=4, coherence=0.74)
    found = [ids for text in texts for ids in made.ids([text], special=False)]
    assert found == tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert len(made.known) <= 60


@pytest.mark.parametrize("wrong", ["bert", "prefixed"])
def test_another_kind_of_tokenizer_is_asked_itself(wrong: str, tokenizer: Any, request: Any) -> None:
    if wrong == "bert":
        other: Any = bert_tokenizer("bert")
    else:
        from tokenizers import pre_tokenizers

        other = byte_tokenizer("gpt2")
        other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert not words.splits_as_gpt2(other)
    assert words.token_ids(TRAPS, other, special=True) == other(TRAPS)["input_ids"]
