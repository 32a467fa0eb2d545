"""How a dialogue becomes one text, and a question of one turn a text of its own again."""

from collections.abc import Iterable
from dataclasses import dataclass

from prefsweep.data.files import Row, shorten
from prefsweep.errors import UserError

ROLES = ("system", "user", "assistant")
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Format:
    """What stands before the words of each side; the assistant's mark ends a prompt."""

    user: str
    assistant: str
    system: str = ""

    def prompt(self, turns: Iterable[tuple[str, str]]) -> str:
        """Return the text of turns, each a role and what it says, up to where the assistant speaks."""
        return "".join(f"{getattr(self, role)} {text.strip()}" for role, text in turns) + self.assistant

    def question(self, prompt: str) -> str | None:
        """Return what the user says, where a prompt is that one turn and nothing else."""
        if not (prompt.startswith(self.user) and prompt.endswith(self.assistant)):
            return None
        text = prompt[len(self.user) : -len(self.assistant)]
        marks = (self.user, self.assistant, self.system)
        return None if any(mark and mark in text for mark in marks) else text.strip()


HH = Format("\n\nHuman:", "\n\nAssistant:", "\n\nSystem:")
KALEIDOSCOPE = Format("User:", "\nAssistant:")


def messages(row: Row, column: str, ends_with: str | None = None) -> Messages:
    """Return the messages in a cell; with `ends_with`, the last must be of that role."""
    value = row.value(column)
    turns = value if isinstance(value, list) else []
    complete = all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns)
    if not turns or not complete or any(turn.get("role") not in ROLES for turn in turns):
        raise UserError(f"{row.location}: its {column} must be messages with role and content, not {shorten(value)}")
    if ends_with and turns[-1]["role"] != ends_with:
        raise UserError(f"{row.location}: its {column} must end with the {ends_with}'s message")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def as_completion(text: str) -> str:
    """Return what the assistant says as it stands behind its mark."""
    return " " + text.strip()


def bare_question(prompt: str) -> str:
    """Return the user's text where a prompt of any format is one turn of theirs; else the prompt as it is."""
    questions = (form.question(prompt) for form in (HH, KALEIDOSCOPE))
    return next((question for question in questions if question is not None), prompt)
