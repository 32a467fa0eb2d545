"""How a dialogue becomes one text, and a question of one turn a text of its own again."""

from collections.abc import Iterable
from dataclasses import dataclass


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


def bare_question(prompt: str) -> str:
    """Return the user's text where a prompt of any format is one turn of theirs; else the prompt as it is."""
    questions = (form.question(prompt) for form in (HH, KALEIDOSCOPE))
    return next((question for question in questions if question is not None), prompt)
