"""What is said of the answers' text alone: length, end, variety, and what they share with the dataset's own answer."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from prefsweep.evaluation.overlap import bleu, rouge
from prefsweep.evaluation.values import Values
from prefsweep.evaluation.variety import distinct, repetition

Row = dict[str, Any]


def described(whose: str, rows: Sequence[Row]) -> dict[str, float]:
    """What is said of the start's and of the base's answers: how long they are, how they end, how they repeat."""
    return {
        f"text/{whose}_length": fmean(len(row["answer_tokens"]) for row in rows),
        f"text/{whose}_ended": fmean(row["ended"] for row in rows),
        f"text/{whose}_repetition": fmean(repetition(row["answer"]) for row in rows),
    }


def values(rows: Sequence[Row]) -> Values:
    overlaps = rouge([row["answer"] for row in rows], [row.get("chosen") for row in rows])
    return [
        {
            "text/length": float(len(row["answer_tokens"])),
            "text/ended": float(row["ended"]),
            "text/repetition": repetition(row["answer"]),
            **overlap,
        }
        for row, overlap in zip(rows, overlaps, strict=True)
    ]


def metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Of all answers as one text: these are no means over answers."""
    answers = [row["answer"] for row in rows]
    found = {f"text/distinct{n}": distinct(answers, n) for n in (1, 2)}
    paired = [(row["answer"], row["chosen"]) for row in rows if row.get("chosen")]
    if paired:
        found |= bleu(*(list(side) for side in zip(*paired, strict=True)))
    return found
