"""Examples as a trainer reads them: token ids, masks by length (never by token id), EOS after each completion that
came to its end and was not cut."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset

from prefsweep.data.cache import Cache, Columns
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.tokens import common_length, splits_at_spaces, token_ids
from prefsweep.data.truncation import Ids, Truncation

IGNORED = -100  # the label of a token that is not learned
IN_MEMORY = Cache()


def encode_prompts(texts: list[str], tokenizer: Any) -> list[Ids]:
    """Return ids with the tokenizer's own beginning (OPT's </s>), and one EOS for an empty prompt: a model cannot read
    nothing."""
    return [ids or [tokenizer.eos_token_id] for ids in token_ids(texts, tokenizer, special=True)]


def encode_completions(texts: list[str], tokenizer: Any) -> list[Ids]:
    """Return ids with nothing before the first token and nothing after the last."""
    return token_ids(texts, tokenizer, special=False)


def encode(
    examples: Sequence[PreferenceExample], sides: Sequence[str], tokenizer: Any, cut: Truncation
) -> list[tuple[Ids, list[Ids]]]:
    """Return prompt and completions, whose tokens put together are the tokens of the whole text; EOS follows those
    completions that ended.

    They are encoded apart, which gives just that in most tokenizers wherever a completion begins with a space.
    Where the text at the boundary would merge, the prompt gives up its last tokens and the completions begin with the
    merged ones; counted.
    """
    prompts = encode_prompts([example.prompt for example in examples], tokenizer)
    texts = [[example.completion(side) for example in examples] for side in sides]
    encoded = [encode_completions(column, tokenizer) for column in texts]
    rows, splits = [], splits_at_spaces(tokenizer)
    for index, (example, prompt) in enumerate(zip(examples, prompts, strict=True)):
        endings, completions = [column[index] for column in texts], [column[index] for column in encoded]
        if example.prompt and not (splits and all(is_apart(example.prompt, ending) for ending in endings)):
            joined = token_ids([example.prompt + ending for ending in endings], tokenizer, special=True)
            if any(prompt + ids != whole for ids, whole in zip(completions, joined, strict=True)):
                shared = min(common_length(prompt, whole) for whole in joined)
                cut.merged += shared < len(prompt)
                prompt = prompt[:shared] or [tokenizer.eos_token_id]
                completions = [whole[shared:] for whole in joined]
        ended = [getattr(example, f"{side}_ended") for side in sides]
        ends = [[tokenizer.eos_token_id] if has_end else [] for has_end in ended]
        rows.append((prompt, [ids + end for ids, end in zip(completions, ends, strict=True)]))
    return rows


def is_apart(prompt: str, completion: str) -> bool:
    """Whether a tokenizer that splits at spaces surely starts a new word at the boundary: one space, then no other."""
    return not prompt[-1:].isspace() and completion[:1] == " " and not completion[1:2].isspace() and len(completion) > 1


def text_rows(texts: list[str], tokenizer: Any, max_length: int, cache: Cache = IN_MEMORY) -> Dataset:
    """Return rows for pretraining: texts with the tokenizer's own beginning and EOS, every token learned.

    A text that is too long loses its end, EOS too.
    """

    def make(part: Sequence[str], cut: Truncation) -> Columns:
        rows = [[*ids, tokenizer.eos_token_id][:max_length] for ids in token_ids(list(part), tokenizer, special=True)]
        return {"input_ids": rows, "labels": rows}

    return cache.rows({"name": "texts", "max_length": max_length}, texts, tokenizer, make)[0]


def completion_rows(
    examples: Sequence[PreferenceExample],
    tokenizer: Any,
    max_length: int,
    completion_only_loss: bool,
    cache: Cache = IN_MEMORY,
    prompt_tokens: int | None = None,
) -> tuple[Dataset, Truncation]:
    """Return rows for SFT: prompt and preferred completion; of labelled rows those whose label is true.

    With `completion_only_loss` the prompt's tokens are read but not learned.
    """

    def make(part: Sequence[PreferenceExample], cut: Truncation) -> Columns:
        preferred = [example for example in part if example.chosen is not None or example.rejected is None]
        rows: Columns = {"input_ids": [], "labels": []}
        for whole_prompt, completions in encode(preferred, ("chosen",), tokenizer, cut):
            prompt, (completion,) = cut.fit(whole_prompt, completions, max_length, prompt_tokens)
            rows["input_ids"].append(prompt + completion)
            rows["labels"].append(([IGNORED] * len(prompt) if completion_only_loss else prompt) + completion)
        return rows

    view = view_of("completions", max_length, prompt_tokens) | {"completion_only_loss": completion_only_loss}
    return cache.rows(view, examples, tokenizer, make)


def view_of(name: str, max_length: int, prompt_tokens: int | None) -> dict[str, Any]:
    """Return what identifies a view in the cache, beside its texts and its tokenizer."""
    return {"name": name, "max_length": max_length, "prompt_tokens": prompt_tokens}


def pair_rows(
    examples: Sequence[PreferenceExample],
    tokenizer: Any,
    max_length: int,
    cache: Cache = IN_MEMORY,
    prompt_tokens: int | None = None,
) -> tuple[Dataset, Truncation]:
    """Return prompt, chosen and rejected in the columns of TRL's DPOTrainer. Both completions share one cut prompt."""

    def make(part: Sequence[PreferenceExample], cut: Truncation) -> Columns:
        rows: Columns = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
        for whole_prompt, whole_completions in encode(part, ("chosen", "rejected"), tokenizer, cut):
            prompt, completions = cut.fit(whole_prompt, whole_completions, max_length, prompt_tokens)
            for column, ids in zip(rows.values(), (prompt, *completions), strict=True):
                column.append(ids)
        return rows

    return cache.rows(view_of("pairs", max_length, prompt_tokens), examples, tokenizer, make)


def unpaired_rows(
    examples: Sequence[PreferenceExample],
    tokenizer: Any,
    max_length: int,
    cache: Cache = IN_MEMORY,
    prompt_tokens: int | None = None,
) -> tuple[Dataset, Truncation]:
    """Return prompt, completion and label in the columns of TRL's KTOTrainer: a row for each completion.

    A pair gives two rows, its chosen completion labelled true and then its rejected one labelled false; a labelled row
    gives itself. Each has a prompt of its own, cut to fit its own completion.
    """

    def make(part: Sequence[PreferenceExample], cut: Truncation) -> Columns:
        sides = [(example, side) for example in part for side in sides_of(example)]
        singles = [
            replace(example, chosen=example.completion(side), chosen_ended=getattr(example, f"{side}_ended"))
            for example, side in sides
        ]
        rows: Columns = {"prompt_ids": [], "completion_ids": [], "label": [side == "chosen" for _, side in sides]}
        for whole_prompt, completions in encode(singles, ("chosen",), tokenizer, cut):
            prompt, (completion,) = cut.fit(whole_prompt, completions, max_length, prompt_tokens)
            rows["prompt_ids"].append(prompt)
            rows["completion_ids"].append(completion)
        return rows

    return cache.rows(view_of("unpaired", max_length, prompt_tokens), examples, tokenizer, make)


def sides_of(example: PreferenceExample) -> list[str]:
    sides = [side for side in ("chosen", "rejected") if getattr(example, side) is not None]
    if not sides:
        example.completion("chosen")  # raises
    return sides
