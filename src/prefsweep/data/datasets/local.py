"""local: a file of your own with the columns prompt, chosen, rejected; with prompts alone where pairs are sampled."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefsweep.config.schema import LocalConfig
from prefsweep.data.files import Row, read
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import carved
from prefsweep.data.tally import Examples, Tally
from prefsweep.errors import UserError


def load(dataset: LocalConfig, split: str, tokenizer: Any) -> Examples:
    path = Path(dataset.path)

    def examples(part: str, tally: Tally) -> Iterator[PreferenceExample]:
        for row in read([path]):
            tally.read += 1
            yield example(row, f"{path.stem}-{row.number}", dataset.pairs)

    return carved(dataset, dataset.test, split, examples)


def example(row: Row, name: str, pairs: str) -> PreferenceExample:
    prompt = row.text("prompt")
    if pairs == "sampled":
        chosen = row.text("chosen") if row.values.get("chosen") is not None else None
        return PreferenceExample(name, prompt, prompt, chosen, None)
    if not {"chosen", "rejected"} & set(row.values):
        raise UserError(
            f"{row.where}: has neither chosen nor rejected; say dataset.pairs=generated for a file of prompts alone"
        )
    return PreferenceExample(name, prompt, prompt, row.text("chosen"), row.text("rejected"))
