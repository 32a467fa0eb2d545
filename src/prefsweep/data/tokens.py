"""What every use of a tokenizer here has in common: the ids of many texts, and the tokenizer's own identity."""

import json
from typing import Any

from prefsweep.data.truncation import Ids
from prefsweep.pipeline.fingerprint import fingerprint


def token_ids(texts: list[str], tokenizer: Any, special: bool) -> list[Ids]:
    """Return the ids of each text, `special` tokens around it or not; a fast tokenizer uses all cores."""
    if not texts:
        return []
    ids: list[Ids] = tokenizer(texts, add_special_tokens=special, return_attention_mask=False)["input_ids"]
    return ids


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
