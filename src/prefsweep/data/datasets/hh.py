"""hh-rlhf: Anthropic's dialogues with an assistant; a row is two dialogues, of which people preferred one.

A dialogue is one text, `\\n\\nHuman: …\\n\\nAssistant: …` and so on. The two of a row differ after the last
`\\n\\nAssistant:`, which ends the prompt; the completion behind it keeps its leading space.
"""

from collections.abc import Iterator
from pathlib import Path

from prefsweep.config.schema import HH_SUBSETS, HHConfig
from prefsweep.data.dialogue import HH
from prefsweep.data.files import Row, read
from prefsweep.data.layout import files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import FileSplits, Splits
from prefsweep.errors import UserError

HUMAN, ASSISTANT = HH.user, HH.assistant


def subsets(dataset: HHConfig) -> tuple[str, ...]:
    return HH_SUBSETS if dataset.subset == "all" else (dataset.subset,)


def file_names(dataset: HHConfig) -> list[str]:
    if dataset.path is not None and (name := Path(dataset.path).name) in HH_SUBSETS and name != dataset.subset:
        raise UserError(f"dataset.path={dataset.path}: is the subset {name}; set dataset.subset={name}")
    return [f"{subset}/{part}" for part in ("train", "test") for subset in subsets(dataset)]


def rows(dataset: HHConfig, part: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of the train or test files as they are, each with its subset."""
    located = files(dataset, file_names(dataset))
    for subset in subsets(dataset):
        for row in read(located[f"{subset}/{part}"]):
            yield subset, row


def load(dataset: HHConfig) -> Splits:
    def examples(part: str) -> Iterator[PreferenceExample | str]:
        for subset, row in rows(dataset, part):
            yield to_example(row, f"{subset}-{part}-{row.number}")

    return FileSplits(dataset, examples)


def to_example(row: Row, name: str) -> PreferenceExample | str:
    """Return the pair of a row, or why it is dropped."""
    prompt, role, chosen = row.text("chosen").rpartition(ASSISTANT)
    other, _, rejected = row.text("rejected").rpartition(ASSISTANT)
    if prompt != other or not role:
        return "prompts disagree"
    if not chosen.strip() or not rejected.strip():
        return "empty completions"
    if chosen == rejected:
        return "equal completions"
    # the human's first message: dialogues that begin alike are one group, in whichever subset they are
    first_turn = prompt.partition(ASSISTANT)[0].removeprefix(HUMAN).strip()
    kind = "harmful" if name.startswith("harmless") else "helpful"
    return PreferenceExample(name, first_turn, prompt + ASSISTANT, chosen, rejected, kind)
