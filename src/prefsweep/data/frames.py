"""Prompt and completion as scorers read them: special tokens around them, and cut to a maximum of tokens.

A scorer compares completions of one prompt, so it must read the same prompt beside each of them: how much of a prompt
it keeps does not depend on the completion."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefsweep.data.tokens import common_length, splits_at_spaces, token_ids
from prefsweep.data.truncation import Ids, Truncation, is_mostly_lost

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
    """For each text a row of ids, its token types, whether it was cut, and whether most of its prompt was."""

    ids: list[Ids] = field(default_factory=list)
    segments: list[Ids] = field(default_factory=list)
    was_cut: list[bool] = field(default_factory=list)
    is_prompt_lost: list[bool] = field(default_factory=list)
    cut: Truncation = field(default_factory=Truncation)

    def add(
        self, frame: Frame, head: Ids, tail: Ids, max_length: int, prompt_tokens: int | None, eos: int | None = None
    ) -> None:
        """Add a row; with `eos` it ends in that token unless its completion was cut."""
        room = max_length - frame.size
        whole = tail if eos is None else [*tail, eos]
        prompt, (completion,) = self.cut.fit(head, [whole], room, prompt_tokens, is_fixed=True)
        self.is_prompt_lost.append(is_mostly_lost(head, prompt))
        self.was_cut.append(len(prompt) + len(completion) < len(head) + len(whole))
        texts = (prompt + completion,) if len(frame.pieces) == 2 else (prompt, completion)
        self.ids.append(frame.around(*texts))
        self.segments.append(frame.segments(*texts))


def templated_rows(
    prompts: list[str],
    completions: list[str],
    tokenizer: Any,
    template: str,
    max_length: int,
    prompt_tokens: int | None = None,
    ended: Sequence[bool] | None = None,
) -> Rows:
    """Return the rows that our reward model is trained on and scores: the template up to the completion, the
    completion, and an end: an encoder's own, or EOS, which a completion that was cut here or in generation (`ended`;
    None: all ended) does not have.

    Prompt and completion are tokenised apart, as a policy reads the one and generates the other; as one text where
    the tokenizer puts a space of its own before a text that stands alone.
    """
    frame, rows = Frame.of(tokenizer, 1), Rows()
    eos = None if frame.pieces[-1] else tokenizer.eos_token_id
    heads = [template.removesuffix("{completion}").replace("{prompt}", prompt) for prompt in prompts]
    head_ids = token_ids(heads, tokenizer, False)
    if splits_at_spaces(tokenizer):
        tail_ids = token_ids(completions, tokenizer, False)
    else:
        wholes = token_ids([head + tail for head, tail in zip(heads, completions, strict=True)], tokenizer, False)
        shared = [common_length(head, whole) for head, whole in zip(head_ids, wholes, strict=True)]
        head_ids = [head[:length] for head, length in zip(head_ids, shared, strict=True)]
        tail_ids = [whole[length:] for whole, length in zip(wholes, shared, strict=True)]
    for head, tail, has_end in zip(head_ids, tail_ids, ended or [True] * len(prompts), strict=True):
        rows.add(frame, head, tail, max_length, prompt_tokens, eos if has_end else None)
    return rows


def joined_rows(
    prompts: list[str], completions: list[str], tokenizer: Any, max_length: int, prompt_tokens: int | None = None
) -> Rows:
    """Return rows of prompt and completion tokenised as one text; apart only if too long, so that both can be cut."""
    frame, rows = Frame.of(tokenizer, 1), Rows()
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    for index, ids in enumerate(token_ids(texts, tokenizer, False)):
        head, tail = [], ids
        if len(ids) > max_length - frame.size:
            head, tail = token_ids([prompts[index], completions[index]], tokenizer, False)
        rows.add(frame, head, tail, max_length, prompt_tokens)
    return rows


def paired_rows(
    prompts: list[str], completions: list[str], tokenizer: Any, max_length: int, prompt_tokens: int | None = None
) -> Rows:
    """Return rows of two texts, framed as in tokenizer(prompt, completion)."""
    frame, rows = Frame.of(tokenizer, 2), Rows()
    for head, tail in zip(token_ids(prompts, tokenizer, False), token_ids(completions, tokenizer, False), strict=True):
        rows.add(frame, head, tail, max_length, prompt_tokens)
    return rows
