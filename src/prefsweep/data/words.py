"""A byte-level tokenizer's ids, word by word from memory: text repeats its words, and a look is cheaper than a merge.

GPT-2's and OPT's tokenizers split a text into words by one expression and merge inside words alone, so the ids of a
text are those of its words put together. What is not surely so (another kind of tokenizer, special tokens in the text,
characters whose class depends on the version of Unicode) goes to the tokenizer itself.
"""

import json
import re
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from prefsweep.data.truncation import Ids

# Outside Latin and general punctuation, libraries of another year may class a character otherwise.
UNSURE = re.compile("[^\t\n\r\x20-\x7e\xa1-\xac\xae-\u024f\u2010-\u2027\u2030-\u205e]")
PLAIN = bytes([*b"\t\n\r", *range(0x20, 0x7F)])  # what is sure of ASCII
LETTER, NUMBER = "A-Za-z\xaa\xb5\xba\xc0-\xd6\xd8-\xf6\xf8-\u024f", "0-9\xb2\xb3\xb9\xbc-\xbe"  # of the others
# GPT-2's own expression: contractions, letters, numbers, the rest, and white space.
WORD = re.compile(rf"'(?:[stmd]|re|ve|ll)| ?[{LETTER}]+| ?[{NUMBER}]+| ?[^\s{LETTER}{NUMBER}]+|\s+(?!\S)|\s+")
KNOWN = 1_000_000  # words kept; a corpus of web text has fewer that come twice

_made: "WeakKeyDictionary[Any, Words | None]" = WeakKeyDictionary()


def token_ids(texts: list[str], tokenizer: Any, special: bool) -> list[Ids]:
    """As `tokenizer(texts, add_special_tokens=special)` gives them."""
    if tokenizer not in _made:
        _made[tokenizer] = Words(tokenizer) if splits_as_gpt2(tokenizer) else None
    words = _made[tokenizer]
    if words is None:
        found: list[Ids] = tokenizer(texts, add_special_tokens=special)["input_ids"]
        return found
    return words.ids(texts, special)


def splits_as_gpt2(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    said = json.loads(backend.to_str())
    split, model = said["pre_tokenizer"] or {}, said["model"]
    return (
        said["normalizer"] is None
        and split.get("type") == "ByteLevel"
        and not split["add_prefix_space"]
        and split.get("use_regex", True)
        and model["type"] == "BPE"
        and not model.get("dropout")
    )


class Words:
    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.known: dict[str, Ids] = {}
        self.special = [token.content for token in tokenizer.added_tokens_decoder.values()]
        bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        place = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
        self.before, self.after = whole[:place], whole[place + len(bare) :]

    def ids(self, texts: list[str], special: bool) -> list[Ids]:
        split = [WORD.findall(text) if self.sure(text) else None for text in texts]
        rows = [None if words is None else self.look(words) for words in split]
        new = {at for at, (words, row) in enumerate(zip(split, rows, strict=True)) if words is not None and row is None}
        self.learn(set(chain.from_iterable(split[at] or () for at in new)))
        rows = [self.look(split[at] or []) if at in new else row for at, row in enumerate(rows)]
        unsure = [text for text, words in zip(texts, split, strict=True) if words is None]
        others = iter(self.tokenizer(unsure, add_special_tokens=special)["input_ids"] if unsure else ())
        before, after = (self.before, self.after) if special else ([], [])
        return [next(others) if row is None else [*before, *row, *after] for row in rows]

    def sure(self, text: str) -> bool:
        odd = text.encode().translate(None, PLAIN) if text.isascii() else UNSURE.search(text)
        return not odd and not any(token in text for token in self.special)

    def look(self, words: list[str]) -> Ids | None:
        """None where one is not known yet: rarer and rarer, which is what makes this quick."""
        try:
            return list(chain.from_iterable(map(self.known.__getitem__, words)))
        except KeyError:
            return None

    def learn(self, words: set[str]) -> None:
        """Every one of them is known after this, whatever must be forgotten for it."""
        new = words.difference(self.known)
        if len(self.known) + len(new) > KNOWN:
            self.known.clear()
            new = words
        if new:
            listed = sorted(new)
            self.known |= zip(listed, self.tokenizer(listed, add_special_tokens=False)["input_ids"], strict=True)
