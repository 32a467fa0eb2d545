"""CulturalKaleidoscope: questions that touch on cultures, with a completion that people preferred and one they did not.

One file with the columns `Question`, `More_Prefered` and `Less_Prefered`; the right spelling and any case are read too.
It has no test split: questions are divided, so that no completion of a test question is learned from.
"""

import re
from collections.abc import Iterator

from prefsweep.config.schema import KaleidoscopeConfig
from prefsweep.data.dialogue import KALEIDOSCOPE
from prefsweep.data.files import Row, read
from prefsweep.data.layout import ANY, files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import FileSplits, Splits

QUESTION, MORE, LESS = "Question", "More_Prefered", "Less_Prefered"


def file_names(dataset: KaleidoscopeConfig) -> list[str]:
    return [ANY]


def load(dataset: KaleidoscopeConfig) -> Splits:
    def examples(part: str) -> Iterator[PreferenceExample | str]:
        for number, row in enumerate(read(files(dataset, file_names(dataset))[ANY]), start=1):
            yield to_example(row, f"row-{number}")

    return FileSplits(dataset, examples, dataset.test)


def to_example(row: Row, name: str) -> PreferenceExample | str:
    """Return the pair of a row, or why it is dropped.

    The prompt has the form in which the dataset's own reward model was trained to read it.
    """
    question, more, less = (row.text(spelling(row, column)).strip() for column in (QUESTION, MORE, LESS))
    if not question:
        return "empty prompts"
    if not more or not less:
        return "empty completions"
    if more == less:
        return "equal completions"
    return PreferenceExample(name, question, KALEIDOSCOPE.prompt([("user", question)]), f" {more}", f" {less}")


def spelling(row: Row, column: str) -> str:
    """Return the column's name as this file spells it."""
    return next((name for name in row.values if normalised(name) == normalised(column)), column)


def normalised(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower()).replace("preferred", "prefered")
