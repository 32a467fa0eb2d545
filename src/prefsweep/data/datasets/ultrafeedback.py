"""ultrafeedback: instructions with the best and another of four models' completions, scored by GPT-4.

A row's completions are messages of roles. They become plain text in the form of hh-rlhf, because the models here have
no chat template of their own: `\\n\\nHuman: …\\n\\nAssistant:` and the completion behind it, with one leading space.
"""

from collections.abc import Iterator

from prefsweep.config.schema import UltraFeedbackConfig
from prefsweep.data.dialogue import HH, as_completion, messages
from prefsweep.data.files import Row, read
from prefsweep.data.layout import files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import FileSplits, Splits


def file_names(dataset: UltraFeedbackConfig) -> list[str]:
    return ["data/train_prefs", "data/test_prefs"]


def load(dataset: UltraFeedbackConfig) -> Splits:
    def examples(part: str) -> Iterator[PreferenceExample | str]:
        located = files(dataset, file_names(dataset))
        for number, row in enumerate(read(located[f"data/{part}_prefs"]), start=1):
            yield to_example(row, f"{part}-{number}", dataset.margin)

    return FileSplits(dataset, examples)


def to_example(row: Row, name: str, margin: float) -> PreferenceExample | str:
    """Return the pair of a row, or why it is dropped."""
    *prompt, chosen = messages(row, "chosen", ends_with="assistant")
    *other, rejected = messages(row, "rejected", ends_with="assistant")
    if prompt != other or not prompt:
        return "prompts disagree"
    if not chosen["content"].strip() or not rejected["content"].strip():
        return "empty completions"
    if chosen == rejected:
        return "equal completions"
    if row.real("score_chosen") - row.real("score_rejected") <= margin:
        return "ties"
    text = HH.prompt((turn["role"], turn["content"]) for turn in prompt)
    return PreferenceExample(name, text, text, as_completion(chosen["content"]), as_completion(rejected["content"]))
