"""Prompt and completion in the form in which a model reads texts: special tokens around them, and if they are too long
the prompt cut first."""

from dataclasses import dataclass, field
from typing import Any

from prefsweep.data.tokens import token_ids
from prefsweep.data.truncation import Ids, Truncation

PROBE = "a"  # any text: only what a tokenizer puts around it is looked at


@dataclass(frozen=True)
class Frame:
    """The special tokens that a tokenizer puts before its texts, between them and after."""

    pieces: tuple[Ids, ...]

    @classmethod
    def of(cls, tokenizer: Any, texts: int) -> "Frame":
        """Read the frame off the tokenizer's own output: architectures differ in the tokens and in their number."""
        rest: Ids = tokenizer(*[PROBE] * texts)["input_ids"]
        bare: Ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        pieces = []
        for _ in range(texts):
            start = next(index for index in range(len(rest)) if rest[index : index + len(bare)] == bare)
            pieces.append(rest[:start])
            rest = rest[start + len(bare) :]
        return cls((*pieces, rest))

    def with_eos(self, eos: int | None) -> "Frame":
        """Return the frame with EOS after the last text if the tokenizer puts nothing there, as language models' do."""
        return self if self.pieces[-1] or eos is None else Frame((*self.pieces[:-1], [eos]))

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))

    def around(self, *texts: Ids) -> Ids:
        first, *others = self.pieces
        return first + [token for text, piece in zip(texts, others, strict=True) for token in [*text, *piece]]

    def segments(self, *texts: Ids) -> Ids:
        """Return BERT's token types: 0 up to and including the separator of two texts, 1 after it."""
        length = len(self.around(*texts))
        second = len(texts[1]) + len(self.pieces[2]) if len(texts) == 2 else 0
        return [0] * (length - second) + [1] * second


@dataclass
class Rows:
    """For each text a row of ids, its token types, and whether it was cut."""

    ids: list[Ids] = field(default_factory=list)
    segments: list[Ids] = field(default_factory=list)
    was_cut: list[bool] = field(default_factory=list)
    cut: Truncation = field(default_factory=Truncation)

    def add(self, frame: Frame, head: Ids, tail: Ids, max_length: int) -> None:
        room = max_length - frame.size
        self.was_cut.append(len(head) + len(tail) > room)
        prompt, (completion,) = self.cut.fit(head, [tail], room)
        texts = (prompt + completion,) if len(frame.pieces) == 2 else (prompt, completion)
        self.ids.append(frame.around(*texts))
        self.segments.append(frame.segments(*texts))


def templated_rows(prompts: list[str], completions: list[str], tokenizer: Any, template: str, max_length: int) -> Rows:
    """Return the rows that our reward model is trained on and scores: the template up to the completion, the
    completion, and an end (EOS, or an encoder's own) that is never cut.

    Prompt and completion are tokenised apart, as a policy reads the one and generates the other.
    """
    frame, rows = Frame.of(tokenizer, 1).with_eos(tokenizer.eos_token_id), Rows()
    heads = [template.removesuffix("{completion}").replace("{prompt}", prompt) for prompt in prompts]
    for head, tail in zip(token_ids(heads, tokenizer, False), token_ids(completions, tokenizer, False), strict=True):
        rows.add(frame, head, tail, max_length)
    return rows


def joined_rows(prompts: list[str], completions: list[str], tokenizer: Any, max_length: int) -> Rows:
    """Return rows of prompt and completion tokenised as one text; apart only if too long, so that the prompt is cut."""
    frame, rows = Frame.of(tokenizer, 1), Rows()
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    for index, ids in enumerate(token_ids(texts, tokenizer, False)):
        head, tail = [], ids
        if len(ids) > max_length - frame.size:
            head, tail = token_ids([prompts[index], completions[index]], tokenizer, False)
        rows.add(frame, head, tail, max_length)
    return rows


def paired_rows(prompts: list[str], completions: list[str], tokenizer: Any, max_length: int) -> Rows:
    """Return rows of two texts, framed as in tokenizer(prompt, completion)."""
    frame, rows = Frame.of(tokenizer, 2), Rows()
    for head, tail in zip(token_ids(prompts, tokenizer, False), token_ids(completions, tokenizer, False), strict=True):
        rows.add(frame, head, tail, max_length)
    return rows
