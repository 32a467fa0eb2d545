"""Examples as a trainer reads them: token ids, masks by length (never by token id), EOS at the end of every answer."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from prefsweep.data.cache import Cache, Columns
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.truncation import Ids, Truncation
from prefsweep.data.words import token_ids

IGNORED = -100  # the label of a token that is not learned
IN_MEMORY = Cache()


def encode_prompts(texts: list[str], tokenizer: Any) -> list[Ids]:
    """With the tokenizer's own beginning (OPT's </s>); an empty prompt becomes one EOS: something must come first."""
    eos = tokenizer.eos_token_id
    return [row or [eos] for row in token_ids(texts, tokenizer, special=True)]


def encode_completions(texts: list[str], tokenizer: Any) -> list[Ids]:
    """With EOS, which is always learned, and nothing put before the first token."""
    eos = tokenizer.eos_token_id
    return [[*row, eos] for row in token_ids(texts, tokenizer, special=False)]


def encode(
    examples: Sequence[PreferenceExample], sides: Sequence[str], tokenizer: Any, cut: Truncation
) -> list[tuple[Ids, list[Ids]]]:
    """Prompt and answers, whose tokens put together are the tokens of the whole text.

    They are encoded apart, which gives just that wherever an answer begins with a space. Where the text at the boundary
    would merge, the prompt gives up its last tokens and the answers begin with the merged ones; counted.
    """
    prompts = encode_prompts([example.prompt for example in examples], tokenizer)
    completions = [encode_completions([example.completion(side) for example in examples], tokenizer) for side in sides]
    rows = []
    for place, (example, prompt) in enumerate(zip(examples, prompts, strict=True)):
        texts, own = [example.completion(side) for side in sides], [side[place] for side in completions]
        if example.prompt and not all(is_apart(example.prompt, text) for text in texts):
            wholes = token_ids([example.prompt + text for text in texts], tokenizer, special=True)
            if any(prompt + ids[:-1] != whole for ids, whole in zip(own, wholes, strict=True)):
                cut.merged += 1
                shared = min(common(prompt, whole) for whole in wholes)
                prompt = prompt[:shared] or [tokenizer.eos_token_id]
                own = [[*whole[shared:], tokenizer.eos_token_id] for whole in wholes]
        rows.append((prompt, own))
    return rows


def is_apart(prompt: str, completion: str) -> bool:
    """Whether a byte-level tokenizer surely starts a new word at the boundary: one space, then no other."""
    return not prompt[-1:].isspace() and completion[:1] == " " and not completion[1:2].isspace() and len(completion) > 1


def common(one: Ids, other: Ids) -> int:
    """How many tokens two rows begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def text_rows(texts: list[str], tokenizer: Any, max_length: int, cache: Cache = IN_MEMORY) -> Dataset:
    """Whole texts with the tokenizer's own beginning and EOS, every token learned: for pretraining.

    One that is too long is read up to there, and has no end.
    """

    def make(part: Sequence[str], cut: Truncation) -> Columns:
        rows = [[*row, tokenizer.eos_token_id][:max_length] for row in token_ids(list(part), tokenizer, special=True)]
        return {"input_ids": rows, "labels": rows}

    return cache.rows({"name": "texts", "max_length": max_length}, texts, tokenizer, make)[0]


def completion_rows(
    examples: Sequence[PreferenceExample],
    tokenizer: Any,
    max_length: int,
    completion_only_loss: bool,
    cache: Cache = IN_MEMORY,
) -> tuple[Dataset, Truncation]:
    """Prompt and preferred answer: for SFT. With `completion_only_loss` the prompt's tokens are read but not learned."""

    def make(part: Sequence[PreferenceExample], cut: Truncation) -> Columns:
        rows: Columns = {"input_ids": [], "labels": []}
        for whole_prompt, completions in encode(part, ("chosen",), tokenizer, cut):
            prompt, (completion,) = cut.fit(whole_prompt, completions, max_length, tokenizer.eos_token_id)
            rows["input_ids"].append(prompt + completion)
            rows["labels"].append(([IGNORED] * len(prompt) if completion_only_loss else prompt) + completion)
        return rows

    return cache.rows(
        {"name": "completions", "max_length": max_length, "completion_only_loss": completion_only_loss},
        examples,
        tokenizer,
        make,
    )


def pair_rows(
    examples: Sequence[PreferenceExample], tokenizer: Any, max_length: int, cache: Cache = IN_MEMORY
) -> tuple[Dataset, Truncation]:
    """Prompt, chosen, rejected, in the columns of TRL's DPOTrainer. Both answers share one truncated prompt."""

    def make(part: Sequence[PreferenceExample], cut: Truncation) -> Columns:
        rows: Columns = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
        eos = tokenizer.eos_token_id
        for whole_prompt, completions in encode(part, ("chosen", "rejected"), tokenizer, cut):
            prompt, completions = cut.fit(whole_prompt, completions, max_length, eos)
            for column, ids in zip(rows, (prompt, *completions), strict=True):
                rows[column].append(ids)
        return rows

    return cache.rows({"name": "pairs", "max_length": max_length}, examples, tokenizer, make)
