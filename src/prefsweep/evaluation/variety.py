"""How varied texts are, in words: what stands between spaces, in lower case."""

from collections.abc import Sequence

WINDOW = 4  # words of an n-gram that `repetition` counts


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.lower().split()
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def distinct(texts: Sequence[str], n: int) -> float:
    """Return different n-grams over all n-grams of all texts (Li et al. 2016). It falls with the number of texts."""
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: str) -> float:
    """Return the share of a text's 4-grams that occurred in it before; 0 for a text of fewer words."""
    grams = ngrams(text, WINDOW)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
