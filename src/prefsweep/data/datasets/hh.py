"""hh-rlhf: Anthropic's dialogues with an assistant, two of them a row, of which people preferred one.

A row is two whole transcripts, each `\\n\\nHuman: …\\n\\nAssistant: …` and so on. They part at the last
`\\n\\nAssistant:`, which ends the prompt; the answer behind it keeps its leading space.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefsweep.config.schema import HH_SUBSETS, HHConfig
from prefsweep.data.files import Row, read
from prefsweep.data.layout import files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import published
from prefsweep.data.tally import Examples, Tally
from prefsweep.errors import UserError

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def subsets(dataset: HHConfig) -> tuple[str, ...]:
    return HH_SUBSETS if dataset.subset == "all" else (dataset.subset,)


def names(dataset: HHConfig) -> list[str]:
    """The files it is read from."""
    if dataset.path is not None and (named := Path(dataset.path).name) in HH_SUBSETS and named != dataset.subset:
        raise UserError(f"dataset.path={dataset.path}: is the subset {named}; say dataset.subset={named}")
    return [f"{subset}/{part}" for part in ("train", "test") for subset in subsets(dataset)]


def rows(dataset: HHConfig, part: str) -> Iterator[tuple[str, Row]]:
    """As they stand in the files, each with its subset."""
    located = files(dataset, names(dataset))
    for subset in subsets(dataset):
        for row in read(located[f"{subset}/{part}"]):
            yield subset, row


def load(dataset: HHConfig, split: str, tokenizer: Any) -> Examples:
    def examples(part: str, tally: Tally) -> Iterator[PreferenceExample]:
        for subset, row in rows(dataset, part):
            made = example(row, f"{subset}-{part}-{row.number}", tally)
            if made is not None:
                yield made

    return published(dataset, split, examples)


def example(row: Row, name: str, tally: Tally) -> PreferenceExample | None:
    """None for what is no pair, counted."""
    tally.read += 1
    prompt, role, chosen = row.text("chosen").rpartition(ASSISTANT)
    other, _, rejected = row.text("rejected").rpartition(ASSISTANT)
    reason = None
    if prompt != other or not role:
        reason = "prompts disagree"
    elif not chosen.strip() or not rejected.strip():
        reason = "empty answers"
    elif chosen == rejected:
        reason = "equal answers"
    if reason:
        tally.drop(reason)
        return None
    kind = "harmful" if name.startswith("harmless") else "helpful"
    return PreferenceExample(name, first_turn(prompt), prompt + ASSISTANT, chosen, rejected, kind)


def first_turn(prompt: str) -> str:
    """What the human said first: dialogues that begin alike are one group, in whichever subset they stand."""
    return prompt.partition(ASSISTANT)[0].removeprefix(HUMAN).strip()
