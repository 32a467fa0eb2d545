"""How a row that is too long is cut, and what was cut of a whole dataset."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

Ids = list[int]


@dataclass
class Truncation:
    """What did not fit: counted, so that no answer is cut in silence."""

    rows: int = 0
    prompts: int = 0
    completions: int = 0
    merged: int = 0  # prompts whose last tokens merge with an answer's first ones: see views.encode

    def fit(
        self, prompt: Ids, completions: Sequence[Ids], max_length: int, eos: int | None = None
    ) -> tuple[Ids, list[Ids]]:
        """The prompt loses its beginning first, down to one token; only then do the answers lose their end.

        With `eos` an answer that was cut still ends with it: a model that learns from long answers learns to stop.
        """
        self.rows += 1
        room = max_length - 1
        self.completions += sum(len(completion) > room for completion in completions)
        kept = [completion[:room] for completion in completions]
        if eos is not None:
            kept = [
                short if len(short) == len(completion) else [*short[:-1], eos]
                for short, completion in zip(kept, completions, strict=True)
            ]
        prompt_room = max_length - max(map(len, kept))
        self.prompts += len(prompt) > prompt_room
        return prompt[-prompt_room:], kept

    def add(self, other: "Truncation") -> None:
        for name, count in other.counts().items():
            setattr(self, name, getattr(self, name) + count)

    def counts(self) -> dict[str, int]:
        return asdict(self)

    def metrics(self) -> dict[str, int]:
        told = {"rows": self.rows, "prompts_truncated": self.prompts, "completions_truncated": self.completions}
        return told | ({"boundaries_merged": self.merged} if self.merged else {})
