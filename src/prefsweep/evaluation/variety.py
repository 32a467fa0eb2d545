"""How varied texts are, in words: what is between spaces, in lower case."""

from collections.abc import Sequence

WINDOW = 4  # words


def words(text: str) -> list[str]:
    return text.lower().split()


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[place : place + n]) for place in range(len(found) - n + 1)]


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams of all texts (Li et al. 2016). More texts have less: compare equal numbers."""
    found = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(found)) / len(found) if found else 0.0


def repetition(text: str) -> float:
    """The share of a text's 4-grams that it has said before; 0 for a text of fewer words."""
    found = ngrams(text, WINDOW)
    return 1 - len(set(found)) / len(found) if found else 0.0
