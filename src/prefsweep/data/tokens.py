"""What every use of a tokenizer here has in common: the ids of many texts, and the tokenizer's own identity.

A text is text: where it spells a special token, as in `a<|endoftext|>b`, its ids are those of the characters. Special
tokens are only those that this program puts around texts.
"""

import copy
import json
from typing import Any
from weakref import WeakKeyDictionary

from prefsweep.data.truncation import Ids
from prefsweep.pipeline.fingerprint import fingerprint

NONCHARACTER = "\U0010ffff"  # which Unicode reserves for uses like this one
_without_special_pieces: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def token_ids(texts: list[str], tokenizer: Any, special: bool) -> list[Ids]:
    """Return the ids of each text, `special` tokens around it or not; a fast tokenizer uses all cores."""
    if not texts:
        return []
    ids: list[Ids] = encoded(texts, tokenizer, add_special_tokens=special, return_attention_mask=False)["input_ids"]
    return ids


def encoded(texts: list[str], tokenizer: Any, **settings: Any) -> Any:
    """Return the tokenizer's whole output for these texts; no text can spell a special token."""
    return without_special_pieces(tokenizer)(texts, split_special_tokens=True, **settings)


def without_special_pieces(tokenizer: Any) -> Any:
    """Return a tokenizer whose model finds no special token in a text: for all models but Unigram the same one.

    `split_special_tokens` turns off the search for special tokens that precedes the model. A Unigram model, such as
    DeBERTa-v3's, also has them among its pieces, and would take the text `[SEP]` for one: in a copy those pieces get
    names that no text contains, while all ids stay.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "Unigram":
        return tokenizer
    if tokenizer not in _without_special_pieces:
        content, special = json.loads(backend.to_str()), set(tokenizer.all_special_ids)
        content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] not in special]
        for index, (_, score) in enumerate(content["model"]["vocab"]):
            if index in special:
                content["model"]["vocab"][index] = [f"{NONCHARACTER}{index}", score]
        _without_special_pieces[tokenizer] = copy.copy(tokenizer)
        _without_special_pieces[tokenizer]._tokenizer = type(backend).from_str(json.dumps(content))
    return _without_special_pieces[tokenizer]


def tokenizer_identity(tokenizer: Any) -> str | None:
    """Return the hash of all that decides a fast tokenizer's output; None for one that is not fast."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    content = json.loads(backend.to_str())
    for setting in ("padding", "truncation"):  # arguments of the last call
        content.pop(setting, None)
    return fingerprint({"tokenizer": content, "eos": tokenizer.eos_token_id, "class": type(tokenizer).__name__})


def splits_at_spaces(tokenizer: Any) -> bool:
    """Whether a text that begins with a space has the same tokens alone as after another text, as byte-level ones have.

    SentencePiece puts a space of its own before a text that stands alone.
    """
    whole, one, other = token_ids(["a b", "a", " b"], tokenizer, special=False)
    return whole == one + other


def common_length(one: Ids, other: Ids) -> int:
    """Return the number of tokens that two rows have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
