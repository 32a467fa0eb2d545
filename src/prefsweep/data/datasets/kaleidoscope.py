"""CulturalKaleidoscope: questions that touch on cultures, with a completion that people preferred and one they did not.

One file with the columns `Question`, `More_Prefered` and `Less_Prefered`; the right spelling and any case are read too.
It has no test split: questions are divided, so that no completion of a test question is learned from.
"""

import re
from collections.abc import Iterator

from prefsweep.config.schema import KaleidoscopeConfig
from prefsweep.data.files import Row, read
from prefsweep.data.layout import ANY, files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import OneFileSplits, Splits
from prefsweep.data.tally import Tally

QUESTION, MORE, LESS = "Question", "More_Prefered", "Less_Prefered"


def file_names(dataset: KaleidoscopeConfig) -> list[str]:
    return [ANY]


def load(dataset: KaleidoscopeConfig) -> Splits:
    def examples(part: str, tally: Tally) -> Iterator[PreferenceExample]:
        for number, row in enumerate(read(files(dataset, file_names(dataset))[ANY]), start=1):
            example = to_example(row, f"row-{number}", tally)
            if example is not None:
                yield example

    return OneFileSplits(dataset, dataset.test, examples)


def to_example(row: Row, name: str, tally: Tally) -> PreferenceExample | None:
    """Return the pair of a row; None, counted in the tally, if it is none.

    The prompt has the form in which the dataset's own reward model was trained to read it.
    """
    tally.read += 1
    question, more, less = (row.text(spelling(row, column)).strip() for column in (QUESTION, MORE, LESS))
    reason = None
    if not question:
        reason = "empty prompts"
    elif not more or not less:
        reason = "empty completions"
    elif more == less:
        reason = "equal completions"
    if reason:
        tally.drop(reason)
        return None
    return PreferenceExample(name, question, f"User: {question}\nAssistant:", f" {more}", f" {less}")


def spelling(row: Row, column: str) -> str:
    """Return the column's name as this file spells it."""
    return next((name for name in row.values if normalised(name) == normalised(column)), column)


def normalised(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower()).replace("preferred", "prefered")
