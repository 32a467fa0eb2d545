"""The one row type: every dataset becomes a stream of these, and nothing downstream knows which dataset it was."""

from dataclasses import dataclass

from prefsweep.errors import UserError


@dataclass(frozen=True, slots=True)
class PreferenceExample:
    """One prompt with a preferred and a rejected answer; a dataset of texts has no rejected ones, one of prompts
    alone has neither.

    `chosen` and `rejected` keep their leading space, so that `prompt + chosen` is the text as it was written
    and its tokens are the tokens a language model saw in pretraining.
    """

    id: str  # names the row; stable across runs and machines
    group: str  # rows of one group never lie in two splits
    prompt: str
    chosen: str | None
    rejected: str | None
    kind: str | None = None  # what the prompt asks for, where the dataset says so: harmful | helpful

    def completion(self, side: str) -> str:
        """Of a method that cannot do without it."""
        found: str | None = getattr(self, side)
        if found is None:
            raise UserError(f"dataset: its row {self.id} has no {side} answer, which this method learns from")
        return found
