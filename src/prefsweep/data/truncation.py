"""How a row that is too long is cut, and the counts of what was cut from a whole dataset."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

Ids = list[int]


@dataclass
class Truncation:
    """Counts of what did not fit, so that no completion is cut in silence."""

    rows: int = 0
    prompts: int = 0
    completions: int = 0
    merged: int = 0  # prompts whose last tokens merge with a completion's first ones: see views.encode

    def fit(
        self, prompt: Ids, completions: Sequence[Ids], max_length: int, eos: int | None = None
    ) -> tuple[Ids, list[Ids]]:
        """Return a prompt and its completions cut so that prompt and completion are at most `max_length` tokens.

        The prompt loses its beginning first, down to one token; only then do the completions lose their end. With
        `eos` a completion that was cut still ends with it: a model that learns from long completions learns to stop.
        """
        self.rows += 1
        room = max_length - 1
        self.completions += sum(len(completion) > room for completion in completions)
        shortened = [completion[:room] for completion in completions]
        if eos is not None:
            shortened = [
                short if len(short) == len(completion) else [*short[:-1], eos]
                for short, completion in zip(shortened, completions, strict=True)
            ]
        prompt_room = max_length - max(map(len, shortened))
        self.prompts += len(prompt) > prompt_room
        return prompt[-prompt_room:], shortened

    def add(self, other: "Truncation") -> None:
        for name, count in other.counts().items():
            setattr(self, name, getattr(self, name) + count)

    def counts(self) -> dict[str, int]:
        return asdict(self)

    def metrics(self) -> dict[str, int]:
        metrics = {"rows": self.rows, "prompts_truncated": self.prompts, "completions_truncated": self.completions}
        return metrics | ({"boundaries_merged": self.merged} if self.merged else {})
