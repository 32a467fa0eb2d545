"""hub: any preference dataset of the hub, by its files and the columns that hold a prompt and its two completions.

A cell is a text or a list of messages with role and content. Messages become one text in the form of hh-rlhf, and so do
texts with `dataset.format=dialogue`: a prompt is what the user says, a completion what the assistant answers.
"""

from collections.abc import Iterator

from prefsweep.config.schema import HubPairsConfig
from prefsweep.data.dialogue import HH, Messages, as_completion, messages
from prefsweep.data.files import Row, read
from prefsweep.data.layout import files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import FileSplits, Splits
from prefsweep.errors import UserError


def file_names(dataset: HubPairsConfig) -> list[str]:
    return [dataset.train_file, *([dataset.test_file] if dataset.test_file else [])]


def load(dataset: HubPairsConfig) -> Splits:
    def examples(part: str) -> Iterator[PreferenceExample | str]:
        name = dataset.train_file if part == "train" else dataset.test_file
        assert name is not None
        for number, row in enumerate(read(files(dataset, file_names(dataset))[name]), start=1):
            yield to_example(row, f"{part}-{number}", dataset)

    return FileSplits(dataset, examples, None if dataset.test_file else dataset.test)


def to_example(row: Row, name: str, dataset: HubPairsConfig) -> PreferenceExample | str:
    """Return the pair of a row, or why it is dropped."""
    columns = dataset.columns
    prompt, chosen = side(row, columns.prompt, columns.chosen, dataset.format)
    other, rejected = side(row, columns.prompt, columns.rejected, dataset.format)
    if prompt != other:
        return "prompts disagree"
    if not prompt.strip():
        return "empty prompts"
    if not chosen.strip() or not rejected.strip():
        return "empty completions"
    if chosen == rejected:
        return "equal completions"
    return PreferenceExample(name, prompt, prompt, chosen, rejected)


def side(row: Row, prompt_column: str | None, column: str, form: str) -> tuple[str, str]:
    """Return the prompt and the completion of one side. Messages of a side may repeat those of the prompt."""
    value, prompt = row.value(column), row.value(prompt_column) if prompt_column else []
    if isinstance(value, str):
        if prompt_column is None:
            raise UserError(
                f"{row.location}: its {column} is a text, so the prompt needs a column: columns.prompt=NAME"
            )
        if isinstance(prompt, str) and form == "plain":
            return prompt, value
        return text_of(turns_of(row, prompt_column)), as_completion(value)
    *before, completion = messages(row, column, ends_with="assistant")
    question = turns_of(row, prompt_column) if prompt_column else []
    if before[: len(question)] != question and not (before and isinstance(prompt, str)):
        before = question + before
    return text_of(before or question), as_completion(completion["content"])


def turns_of(row: Row, column: str) -> Messages:
    """Return a prompt as messages; a text is what the user says."""
    value = row.value(column)
    return [{"role": "user", "content": value}] if isinstance(value, str) else messages(row, column)


def text_of(turns: Messages) -> str:
    return HH.prompt((turn["role"], turn["content"]) for turn in turns) if turns else ""
