"""Prompt and answer as a model reads whole texts: its special tokens around them, cut so that the answer stays."""

from dataclasses import dataclass, field
from typing import Any

from prefsweep.data.truncation import Ids, Truncation
from prefsweep.data.words import token_ids

PROBE = "a"  # any text: only what a tokenizer puts around it is looked at


@dataclass(frozen=True)
class Frame:
    """The special tokens that a tokenizer puts before its texts, between them and after."""

    pieces: tuple[Ids, ...]

    @classmethod
    def of(cls, tokenizer: Any, texts: int) -> "Frame":
        """Read off the tokenizer's own output: architectures agree on neither the tokens nor their number."""
        rest: Ids = tokenizer(*[PROBE] * texts)["input_ids"]
        bare: Ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        pieces = []
        for _ in range(texts):
            start = next(place for place in range(len(rest)) if rest[place : place + len(bare)] == bare)
            pieces.append(rest[:start])
            rest = rest[start + len(bare) :]
        return cls((*pieces, rest))

    def ended(self, eos: int | None) -> "Frame":
        """With EOS after the last text, where the tokenizer puts nothing there: language models' do not."""
        return self if self.pieces[-1] or eos is None else Frame((*self.pieces[:-1], [eos]))

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))

    def around(self, *texts: Ids) -> Ids:
        first, *others = self.pieces
        return first + [token for text, piece in zip(texts, others, strict=True) for token in [*text, *piece]]

    def segments(self, *texts: Ids) -> Ids:
        """BERT's token types: 0 up to and with what separates two texts, 1 after it."""
        whole = len(self.around(*texts))
        second = len(texts[1]) + len(self.pieces[2]) if len(texts) == 2 else 0
        return [0] * (whole - second) + [1] * second


@dataclass
class Rows:
    """A row of ids a text, its token types, and whether it had to be cut."""

    ids: list[Ids] = field(default_factory=list)
    segments: list[Ids] = field(default_factory=list)
    was_cut: list[bool] = field(default_factory=list)
    cut: Truncation = field(default_factory=Truncation)

    def add(self, frame: Frame, head: Ids, tail: Ids, max_length: int) -> None:
        room = max_length - frame.size
        self.was_cut.append(len(head) + len(tail) > room)
        kept, (completion,) = self.cut.fit(head, [tail], room)
        texts = (kept + completion,) if len(frame.pieces) == 2 else (kept, completion)
        self.ids.append(frame.around(*texts))
        self.segments.append(frame.segments(*texts))


def bare_ids(texts: list[str], tokenizer: Any) -> list[Ids]:
    return token_ids(texts, tokenizer, special=False)


def templated_rows(prompts: list[str], completions: list[str], tokenizer: Any, template: str, max_length: int) -> Rows:
    """As a reward model of ours is both trained and asked: what stands before the answer, the answer, its end.

    The two are tokenised apart, as a policy reads the one and writes the other; the end (EOS, or an encoder's own)
    is always there.
    """
    frame, rows = Frame.of(tokenizer, 1).ended(tokenizer.eos_token_id), Rows()
    before = [template.removesuffix("{completion}").replace("{prompt}", prompt) for prompt in prompts]
    for head, tail in zip(bare_ids(before, tokenizer), bare_ids(completions, tokenizer), strict=True):
        rows.add(frame, head, tail, max_length)
    return rows


def joined_rows(prompts: list[str], completions: list[str], tokenizer: Any, max_length: int) -> Rows:
    """One text, tokenised as one; only where it is too long apart, so that it is the prompt that is cut."""
    frame, rows = Frame.of(tokenizer, 1), Rows()
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    for place, whole in enumerate(bare_ids(texts, tokenizer)):
        head, tail = [], whole
        if len(whole) > max_length - frame.size:
            head, tail = bare_ids([prompts[place], completions[place]], tokenizer)
        rows.add(frame, head, tail, max_length)
    return rows


def paired_rows(prompts: list[str], completions: list[str], tokenizer: Any, max_length: int) -> Rows:
    """Two texts, as tokenizer(prompt, answer) reads them."""
    frame, rows = Frame.of(tokenizer, 2), Rows()
    for head, tail in zip(bare_ids(prompts, tokenizer), bare_ids(completions, tokenizer), strict=True):
        rows.add(frame, head, tail, max_length)
    return rows
