"""What a person at the keyboard can do something about. Everything else keeps its traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what to type instead. Exit code 2."""


class DivergedError(Exception):
    """Training left the finite numbers. A result, not a bug: one line, status `diverged`, exit code 1."""


def nearest(word: str, known: Iterable[str]) -> str:
    """` (nearest: x)` for the known word most like this one, or nothing where none is alike."""
    candidates = sorted(known)
    leaf = word.rpartition(".")[2]
    same_leaf = [name for name in candidates if difflib.get_close_matches(leaf, [name.rpartition(".")[2]], cutoff=0.75)]
    close = difflib.get_close_matches(word, same_leaf or candidates, n=1, cutoff=0.3 if same_leaf else 0.6)
    return f" (nearest: {close[0]})" if close else ""
