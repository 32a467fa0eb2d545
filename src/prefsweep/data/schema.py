"""The one row type: every dataset becomes a sequence of these, and nothing downstream knows which dataset it was."""

from dataclasses import dataclass

from prefsweep.errors import UserError


@dataclass(frozen=True, slots=True)
class PreferenceExample:
    """One prompt with a preferred and a rejected completion.

    A row of a labelled file has one of the two: `chosen` where the label is true, `rejected` where it is false. A
    dataset of texts has no rejected completions, one of prompts alone has neither.

    `chosen` and `rejected` keep their leading space, so that `prompt + chosen` is the text as it was written
    and its tokens are the tokens a language model saw in pretraining.
    """

    id: str  # names the row; stable across runs and machines
    group: str  # rows of one group never lie in two splits
    prompt: str
    chosen: str | None
    rejected: str | None
    kind: str | None = None  # what the prompt asks for, where the dataset says so: harmful | helpful
    # Whether each completion came to its end. One that generation stopped at its maximum did not: no EOS follows it.
    chosen_ended: bool = True
    rejected_ended: bool = True
    label: bool | None = None  # of a text in `chosen`: whether it is a positive one, where the dataset says so

    def completion(self, side: str) -> str:
        """Return the `chosen` or the `rejected` completion; raise a UserError if the row has none."""
        text: str | None = getattr(self, side)
        if text is None:
            other = self.rejected if side == "chosen" else self.chosen
            hint = "" if other is None else "; method=kto learns from single completions with a label"
            raise UserError(f"dataset: row {self.id} has no {side} completion, which this method learns from{hint}")
        return text
