"""CulturalKaleidoscope: questions that touch on cultures, with an answer that people preferred and one they did not.

One file of `Question`, `More_Prefered`, `Less_Prefered`, spelt so; the right spelling and any case are read too. It has
no test split: questions are divided, so that no answer to a test question is learned from.
"""

import re
from collections.abc import Iterator
from typing import Any

from prefsweep.config.schema import KaleidoscopeConfig
from prefsweep.data.files import Row, read
from prefsweep.data.layout import ANY, files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import carved
from prefsweep.data.tally import Examples, Tally

QUESTION, MORE, LESS = "Question", "More_Prefered", "Less_Prefered"


def names(dataset: KaleidoscopeConfig) -> list[str]:
    """The files it is read from."""
    return [ANY]


def load(dataset: KaleidoscopeConfig, split: str, tokenizer: Any) -> Examples:
    def examples(part: str, tally: Tally) -> Iterator[PreferenceExample]:
        for number, row in enumerate(read(files(dataset, names(dataset))[ANY]), start=1):
            made = example(row, f"row-{number}", tally)
            if made is not None:
                yield made

    return carved(dataset, dataset.test, split, examples)


def example(row: Row, name: str, tally: Tally) -> PreferenceExample | None:
    """None for what is no pair, counted. The prompt is what its published reward model was asked with."""
    tally.read += 1
    question, more, less = (row.text(spelt(row, column)).strip() for column in (QUESTION, MORE, LESS))
    reason = None
    if not question:
        reason = "empty questions"
    elif not more or not less:
        reason = "empty answers"
    elif more == less:
        reason = "equal answers"
    if reason:
        tally.drop(reason)
        return None
    return PreferenceExample(name, question, f"User: {question}\nAssistant:", f" {more}", f" {less}")


def spelt(row: Row, column: str) -> str:
    """The column as this file spells it."""
    return next((name for name in row.values if plain(name) == plain(column)), column)


def plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower()).replace("preferred", "prefered")
