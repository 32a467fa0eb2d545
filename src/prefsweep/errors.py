"""Errors that a user can resolve, shown in one line. All others keep their traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what to type instead. Exit code 2."""


class DivergedError(Exception):
    """Training has diverged, which is a result, not a bug: one line, status `diverged`, exit code 1."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (nearest: x)` with the known word most similar to `word`, or an empty string where none is similar."""
    candidates = sorted(known)
    leaf = word.rpartition(".")[2]
    same_leaf = [name for name in candidates if difflib.get_close_matches(leaf, [name.rpartition(".")[2]], cutoff=0.75)]
    close = difflib.get_close_matches(word, same_leaf or candidates, n=1, cutoff=0.3 if same_leaf else 0.6)
    return f" (nearest: {close[0]})" if close else ""
