"""local: a file of your own.

`dataset.pairs` says what its rows are: pairs (`dataset`: columns prompt, chosen, rejected), single completions with a
label (`labelled`: prompt, completion, label), or prompts with or without a chosen text (`generated`).
"""

from collections.abc import Iterator
from pathlib import Path

from prefsweep.config.schema import LocalConfig
from prefsweep.data.files import Row, read
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import FileSplits, Splits
from prefsweep.errors import UserError


def load(dataset: LocalConfig) -> Splits:
    path = Path(dataset.path)

    def examples(part: str) -> Iterator[PreferenceExample]:
        for row in read([path]):
            name, prompt = f"{path.stem}-{row.number}", row.text("prompt")
            yield PreferenceExample(name, prompt, prompt, *completions(row, dataset.pairs))

    return FileSplits(dataset, examples, dataset.test)


def completions(row: Row, pairs: str) -> tuple[str | None, str | None]:
    """Return the chosen and the rejected completion of a row; of a labelled one the label says which it has."""
    if pairs == "labelled":
        completion = row.text("completion")
        return (completion, None) if row.flag("label") else (None, completion)
    if pairs == "generated":
        return (row.text("chosen") if row.values.get("chosen") is not None else None), None
    if not {"chosen", "rejected"} & set(row.values):
        kind, rows = ("labelled", "labelled completions") if "label" in row.values else ("generated", "prompts alone")
        raise UserError(
            f"{row.location}: has neither chosen nor rejected; set dataset.pairs={kind} for a file of {rows}"
        )
    return row.text("chosen"), row.text("rejected")
