"""What is said of the answers' text alone: length, end, variety, and what they share with the dataset's own answer."""

from collections.abc import Sequence
from typing import Any

from prefsweep.evaluation.overlap import bleu, rouge
from prefsweep.evaluation.values import Values, means
from prefsweep.evaluation.variety import distinct, repetition

Row = dict[str, Any]


def plain(row: Row) -> dict[str, float]:
    """Of an answer by itself."""
    tokens = row["completion_tokens"]
    return {"length": float(len(tokens)), "ended": float(row["ended"]), "repetition": repetition(row["completion"])}


def described(whose: str, rows: Sequence[Row]) -> dict[str, float]:
    """The start's or the base's answers by themselves."""
    return means([{f"text/{whose}_{name}": value for name, value in plain(row).items()} for row in rows])


def values(rows: Sequence[Row]) -> Values:
    overlaps = rouge([row["completion"] for row in rows], [row.get("chosen") for row in rows])
    return [
        {f"text/{name}": value for name, value in plain(row).items()} | overlap
        for row, overlap in zip(rows, overlaps, strict=True)
    ]


def metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Of all answers as one text: these are no means over answers."""
    completions = [row["completion"] for row in rows]
    found = {f"text/distinct{n}": distinct(completions, n) for n in (1, 2)}
    paired = [(row["completion"], row["chosen"]) for row in rows if row.get("chosen")]
    if paired:
        found |= bleu(*(list(side) for side in zip(*paired, strict=True)))
    return found
