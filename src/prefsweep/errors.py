"""Errors that the person at the keyboard can act on. Every other exception is a bug and keeps its traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what to type instead. Exit code 2."""


class DivergedError(Exception):
    """Training diverged, as by a loss that is not finite. A result and not a bug: status `diverged`, exit code 1."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (nearest: x)` for the known word most like `word`, or "" if none is alike.

    Of dotted keys, those whose last part is alike come first: `stages.dop.beta` is rather `stages.dpo.beta`.
    """
    candidates = sorted(known)
    leaf = word.rpartition(".")[2]
    same_leaf = [name for name in candidates if difflib.get_close_matches(leaf, [name.rpartition(".")[2]], cutoff=0.75)]
    close = difflib.get_close_matches(word, same_leaf or candidates, n=1, cutoff=0.3 if same_leaf else 0.6)
    return f" (nearest: {close[0]})" if close else ""
