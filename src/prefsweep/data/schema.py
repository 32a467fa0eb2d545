"""The one row type: every dataset becomes a stream of these, and nothing downstream knows which dataset it was."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PreferenceExample:
    """One prompt with a preferred and a rejected answer.

    `chosen` and `rejected` keep their leading space, so that `prompt + chosen` is the text as it was written
    and its tokens are the tokens a language model saw in pretraining.
    """

    id: str  # names the row; stable across runs and machines
    group: str  # rows of one group never lie in two splits
    prompt: str
    chosen: str
    rejected: str
