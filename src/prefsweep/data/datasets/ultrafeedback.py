"""ultrafeedback: instructions with the best and another of four models' answers, scored by GPT-4.

A row's answers are messages of roles. They become plain text in the form of hh-rlhf, because the models here have no
chat template of their own: `\\n\\nHuman: …\\n\\nAssistant:` and the answer behind it, with one leading space.
"""

from collections.abc import Iterator
from typing import Any

from prefsweep.config.schema import UltraFeedbackConfig
from prefsweep.data.files import Row, read, shown
from prefsweep.data.layout import files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import published
from prefsweep.data.tally import Examples, Tally
from prefsweep.errors import UserError

SPEAKERS = {"system": "\n\nSystem:", "user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
Messages = list[dict[str, str]]


def names(dataset: UltraFeedbackConfig) -> list[str]:
    """The files it is read from."""
    return ["data/train_prefs", "data/test_prefs"]


def load(dataset: UltraFeedbackConfig, split: str, tokenizer: Any) -> Examples:
    located = files(dataset, names(dataset))

    def examples(part: str, tally: Tally) -> Iterator[PreferenceExample]:
        for number, row in enumerate(read(located[f"data/{part}_prefs"]), start=1):
            made = example(row, f"{part}-{number}", dataset.margin, tally)
            if made is not None:
                yield made

    return published(dataset, split, examples)


def example(row: Row, name: str, margin: float, tally: Tally) -> PreferenceExample | None:
    """None for what is no pair, counted."""
    tally.read += 1
    *asked, chosen = messages(row, "chosen")
    *other, rejected = messages(row, "rejected")
    reason = None
    if asked != other or not asked:
        reason = "prompts disagree"
    elif not chosen["content"].strip() or not rejected["content"].strip():
        reason = "empty answers"
    elif chosen == rejected:
        reason = "equal answers"
    elif row.number_of("score_chosen") - row.number_of("score_rejected") <= margin:
        reason = "ties"
    if reason:
        tally.drop(reason)
        return None
    prompt = "".join(said(message) for message in asked) + SPEAKERS["assistant"]
    return PreferenceExample(name, prompt, prompt, completion(chosen), completion(rejected))


def messages(row: Row, column: str) -> Messages:
    """The turns of one side, the last of them the assistant's."""
    found = row.value(column)
    turns = found if isinstance(found, list) else []
    whole = all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns)
    if not turns or not whole or any(turn.get("role") not in SPEAKERS for turn in turns):
        raise UserError(f"{row.where}: its {column} must be messages with role and content, not {shown(found)}")
    if turns[-1]["role"] != "assistant":
        raise UserError(f"{row.where}: its {column} must end with the assistant's message")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def said(message: dict[str, str]) -> str:
    return f"{SPEAKERS[message['role']]} {message['content'].strip()}"


def completion(message: dict[str, str]) -> str:
    return " " + message["content"].strip()
