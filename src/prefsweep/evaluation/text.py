"""Metrics of the completions' text: length, end, variety, and overlap with the dataset's chosen completion."""

from collections.abc import Sequence
from typing import Any

from prefsweep.evaluation.by_group import Measured, averaged, jackknifed
from prefsweep.evaluation.overlap import Bleu, rouge
from prefsweep.evaluation.values import Values

Row = dict[str, Any]
WINDOW = 4  # words of an n-gram that `repetition` counts


def plain(row: Row) -> dict[str, float]:
    """Return the metrics of one completion that need no reference."""
    tokens = row["completion_tokens"]
    return {"length": float(len(tokens)), "ended": float(row["ended"]), "repetition": repetition(row["completion"])}


def plain_means(subject: str, rows: Sequence[Row]) -> Measured:
    """Measure the means of `plain` for the start's or the base's completions: `text/start_length` and so on."""
    values = [{f"text/{subject}_{name}": value for name, value in plain(row).items()} for row in rows]
    return averaged([row["group"] for row in rows], values)


def values(rows: Sequence[Row]) -> Values:
    overlaps = rouge([row["completion"] for row in rows], [row.get("chosen") for row in rows])
    return [
        {f"text/{name}": value for name, value in plain(row).items()} | overlap
        for row, overlap in zip(rows, overlaps, strict=True)
    ]


def metrics(rows: Sequence[Row]) -> Measured:
    """Measure all completions together: what is no mean over completions.

    Distinct-n has no values by group: the jackknife's are far too wide, since it is the number of texts that it falls
    with.
    """
    completions = [row["completion"] for row in rows]
    measured = Measured({f"text/distinct{n}": distinct(completions, n) for n in (1, 2)})
    paired = [row for row in rows if row.get("chosen")]
    if paired:
        bleu = Bleu([row["completion"] for row in paired], [row["chosen"] for row in paired])
        measured |= jackknifed([row["group"] for row in paired], bleu)
    return measured


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Return the n-grams of what stands between spaces, in lower case."""
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
