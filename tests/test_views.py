"""Token ids and masks as the trainers get them."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from architectures import byte_tokenizer
from prefsweep.data.cache import Cache
from prefsweep.data.datasets.synthetic import preferences
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.truncation import Truncation
from prefsweep.data.views import (
    IGNORED,
    completion_rows,
    encode_completions,
    encode_prompts,
    pair_rows,
    text_rows,
    unpaired_rows,
)
from prefsweep.errors import UserError


def examples() -> list[PreferenceExample]:
    return preferences(20, seed=4, coherence=0.74, noise=0.0)


def test_prompt_and_answer_tokens_are_the_tokens_of_the_whole(tokenizer: Any) -> None:
    rows = examples()
    prompts = encode_prompts([row.prompt for row in rows], tokenizer)
    completions = encode_completions([row.chosen for row in rows], tokenizer)
    for row, prompt, completion in zip(rows, prompts, completions, strict=True):
        assert prompt + completion == tokenizer(row.prompt + row.chosen)["input_ids"]


def test_every_answer_ends_with_eos_which_is_learned_and_is_not_pad(tokenizer: Any) -> None:
    dataset, _ = completion_rows(examples(), tokenizer, 160, True)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for row in dataset:
        assert row["labels"][-1] == row["input_ids"][-1] == tokenizer.eos_token_id


def test_the_prompt_is_read_and_learned_only_when_asked(tokenizer: Any) -> None:
    rows = examples()
    prompts = encode_prompts([row.prompt for row in rows], tokenizer)
    completion_only, _ = completion_rows(rows, tokenizer, 160, True)
    everything, _ = completion_rows(rows, tokenizer, 160, False)
    for prompt, row, whole in zip(prompts, completion_only, everything, strict=True):
        assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)
        assert row["labels"][len(prompt) :] == row["input_ids"][len(prompt) :]
        assert whole["labels"] == whole["input_ids"] == row["input_ids"]


def test_the_prompts_beginning_goes_down_to_its_budget_and_then_the_completions_end() -> None:
    cut = Truncation()
    assert cut.fit([1, 2, 3, 4], [[5, 6, 7], [8, 9]], max_length=5) == ([3, 4], [[5, 6, 7], [8, 9]])
    assert cut.fit([1, 2, 3, 4], [[5, 6, 7], [8, 9]], 5, prompt_tokens=3) == ([2, 3, 4], [[5, 6], [8, 9]])
    assert cut.fit([1, 2], [[5, 6, 7], [8]], max_length=3) == ([2], [[5, 6], [8]])
    assert cut.fit([1, 2], [[5]], max_length=3) == ([1, 2], [[5]])
    assert cut.fit([1], [[5, 6, 7, 8]], max_length=4) == ([1], [[5, 6, 7]])  # a short prompt leaves its room
    assert cut.metrics() == {
        "rows": 5,
        "prompts_truncated": 3,
        "prompts_mostly_truncated": 0,
        "completions_truncated": 3,
    }


def test_a_prompt_that_loses_more_than_three_quarters_is_counted() -> None:
    cut = Truncation()
    cut.fit(8 * [1], [4 * [2]], max_length=6)
    assert (cut.prompts, cut.prompts_mostly) == (1, 0)
    cut.fit(13 * [1], [6 * [2]], max_length=6)
    assert (cut.prompts, cut.prompts_mostly) == (2, 1)


def test_both_answers_of_a_pair_share_one_prompt(tokenizer: Any) -> None:
    rows = examples()
    dataset, cut = pair_rows(rows, tokenizer, 160)
    assert cut.prompts == cut.completions == 0
    for row, example in zip(dataset, rows, strict=True):
        assert tokenizer.decode(row["prompt_ids"]) == example.prompt
        assert tokenizer.decode(row["chosen_ids"][:-1]) == example.chosen
        assert tokenizer.decode(row["rejected_ids"][:-1]) == example.rejected


def test_a_pretraining_text_is_learned_whole(tokenizer: Any) -> None:
    (row,) = text_rows([examples()[0].prompt], tokenizer, 160)
    assert row["labels"] == row["input_ids"] == [*tokenizer(examples()[0].prompt)["input_ids"], tokenizer.eos_token_id]


def test_an_empty_prompt_still_gives_the_model_something_to_read(tokenizer: Any) -> None:
    assert encode_prompts([""], tokenizer) == [[tokenizer.eos_token_id]]


SEAMS = [  # prompt, chosen, rejected: only the first parts between two words for sure
    ("The plot was", " witty.", " dull."),
    ("The plot was ", "witty.", " dull."),
    ("The pl", "ot was witty.", "ace was dull."),
    ("The plot was", "\n\nwitty.", "  dull."),
    ("The plot\n", "\nwas witty.", " was dull."),
    ("a", "cting", " cting"),
    ("", "The plot", "The part"),
]


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_whatever_stands_at_the_boundary_the_tokens_are_those_of_the_whole(name: str, tokenizer: Any) -> None:
    if name == "opt":
        tokenizer = begun(tokenizer)
    rows = [PreferenceExample(str(index), prompt, *texts) for index, (prompt, *texts) in enumerate(with_group(SEAMS))]
    dataset, cut = pair_rows(rows, tokenizer, 96)
    for row, example in zip(dataset, rows, strict=True):
        for side in ("chosen", "rejected"):
            tokens = row["prompt_ids"] + row[f"{side}_ids"]
            expected = tokenizer(example.prompt + example.completion(side))["input_ids"]
            beginning = [tokenizer.eos_token_id] if tokens[0] != expected[0] else []
            assert tokens == [*beginning, *expected, tokenizer.eos_token_id], example
    assert cut.merged and cut.metrics()["boundaries_merged"] == cut.merged
    assert pair_rows(rows[:1], tokenizer, 96)[1].merged == 0


TRAPS = [  # text that tokenizers split in unlike ways: spaces, contractions, special tokens, scripts, controls
    " ",
    "  two spaces  and\n\nlines\t\ttabs \n",
    "don't we'll I'd it's 'twas '' '",
    "\n\nHuman: What\u2019s “that” — a dash… or é, ü, ñ?\n\nAssistant: 3.14 costs £5, ½ off ²",
    "<|endoftext|> in the midst</s>of it <pad>",
    "control \x1c\x1d\x85\xa0\u2003\u200b\ufeff white",
    "日本語 русский עברית हिन्दी 🙂👍🏽 \U0001f9d1\u200d\U0001f680",
    "...!?!?...",
    "x1y2z3 42nd",
    "\r\n windows \r\n",
]


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_prompt_and_completion_ids_are_those_of_the_whole_text(kind: str) -> None:
    tokenizer = byte_tokenizer(kind)
    rng = random.Random(0)
    texts = ["".join(rng.choices([*TRAPS, "A plain plot.", " It was dull."], k=3)) for _ in range(400)]
    rows = [
        PreferenceExample(str(index), text, text[:cut], text[cut:], text[cut:][::-1])
        for index, text in enumerate(texts)
        for cut in [rng.randrange(1, len(text))]
    ]
    dataset, cut = pair_rows(rows, tokenizer, 10_000)
    for row, example in zip(dataset, rows, strict=True):
        for side in ("chosen", "rejected"):
            whole = tokenizer(example.prompt + example.completion(side), split_special_tokens=True)["input_ids"]
            ids = row["prompt_ids"] + row[f"{side}_ids"][:-1]
            assert ids in (whole, [tokenizer.eos_token_id, *whole]), example
    assert cut.merged and not cut.prompts


def with_group(seams: list[tuple[str, str, str]]) -> list[tuple[str, str, str, str]]:
    return [(prompt, prompt, chosen, rejected) for prompt, chosen, rejected in seams]


def begun(tokenizer: Any) -> Any:
    """As OPT's: every text begins with a token of its own."""
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    opt = deepcopy(tokenizer)
    opt.backend_tokenizer.post_processor = TemplateProcessing("<|pad|> $A", None, [("<|pad|>", opt.pad_token_id)])
    return opt


def test_the_answer_keeps_its_leading_space(tokenizer: Any) -> None:
    (row,) = pair_rows(examples()[:1], tokenizer, 96)[0]
    assert tokenizer.decode(row["chosen_ids"]).startswith(" ") and tokenizer.decode(row["rejected_ids"]).startswith(" ")


@pytest.mark.parametrize("max_length", [2, 3, 8, 20, 160])
def test_eos_is_learned_exactly_where_a_text_was_not_cut(max_length: int, tokenizer: Any) -> None:
    rows, eos = examples(), tokenizer.eos_token_id
    lengths = {
        row.id: [len(ids) + 1 for ids in encode_completions([str(row.chosen), str(row.rejected)], tokenizer)]
        for row in rows
    }
    pairs, cut = pair_rows(rows, tokenizer, max_length)
    for row, example in zip(pairs, rows, strict=True):
        for side, whole in zip(("chosen_ids", "rejected_ids"), lengths[example.id], strict=True):
            assert 1 <= len(row["prompt_ids"]) <= max_length - len(row[side])
            assert (row[side][-1] == eos) == (len(row[side]) == whole)
    for completion_only_loss in (True, False):
        dataset, _ = completion_rows(rows, tokenizer, max_length, completion_only_loss)
        for row, example in zip(dataset, rows, strict=True):
            assert row["labels"][-1] == row["input_ids"][-1] and len(row["labels"]) <= max_length
            prompt = len(tokenizer(example.prompt)["input_ids"])
            is_cut = lengths[example.id][0] + min(prompt, max_length // 2) > max_length
            assert (row["labels"][-1] == eos) == (not is_cut)
    assert (cut.completions > 0) == (max_length <= 20)


def test_no_eos_follows_a_completion_that_did_not_end(tokenizer: Any) -> None:
    rows, eos = [replace(row, rejected_ended=False) for row in examples()], tokenizer.eos_token_id
    assert all(row["chosen_ids"][-1] == eos != row["rejected_ids"][-1] for row in pair_rows(rows, tokenizer, 96)[0])
    for row in unpaired_rows(rows, tokenizer, 96)[0]:
        assert (row["completion_ids"][-1] == eos) == row["label"]


def test_eos_is_learned_where_it_is_the_pad_token_too(tokenizer: Any) -> None:
    from copy import deepcopy

    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    shared = deepcopy(tokenizer)
    shared.pad_token = shared.eos_token
    rows = completion_rows(examples()[:4], shared, 96, True)[0].to_list()
    batch = DataCollatorForLanguageModeling(pad_token_id=shared.pad_token_id)(rows)
    for row, labels, attention in zip(rows, batch["labels"].tolist(), batch["attention_mask"].tolist(), strict=True):
        length = len(row["input_ids"])
        assert labels[:length] == row["labels"] and labels[length - 1] == shared.eos_token_id
        assert set(labels[length:]) <= {IGNORED} and sum(attention) == length


# ------------------------------------------------------------------------------------------------- single completions


def labelled() -> list[PreferenceExample]:
    """One completion of each pair, as the rows of a labelled file are: the even rows true, the odd ones false."""
    return [
        replace(row, rejected=None) if index % 2 == 0 else replace(row, chosen=None)
        for index, row in enumerate(examples())
    ]


@pytest.mark.parametrize("max_length", [8, 20, 160])
def test_a_pair_is_two_single_completions(max_length: int, tokenizer: Any, tmp_path: Path) -> None:
    rows = examples()
    for cache in (Cache(), Cache(tmp_path), Cache(tmp_path)):  # in memory, written, read
        dataset, cut = unpaired_rows(rows, tokenizer, max_length, cache)
        assert dataset["label"][:] == [True, False] * len(rows)
        assert (cut.rows, cut.completions > 0) == (2 * len(rows), max_length <= 20)
    for index, row in enumerate(dataset):
        example, side = rows[index // 2], "chosen" if row["label"] else "rejected"
        whole = tokenizer(example.prompt + example.completion(side))["input_ids"] + [tokenizer.eos_token_id]
        ids = row["prompt_ids"] + row["completion_ids"]
        assert row["prompt_ids"] and len(ids) <= max_length
        if len(whole) <= max_length:
            assert ids == whole
        else:
            prompt = len(tokenizer(example.prompt)["input_ids"])
            assert len(ids) == max_length and len(row["prompt_ids"]) >= min(max_length // 2, prompt)


def test_a_labelled_row_is_itself(tokenizer: Any) -> None:
    singles, _ = unpaired_rows(labelled(), tokenizer, 96)
    pairs = unpaired_rows(examples(), tokenizer, 96)[0].to_list()
    assert singles.to_list() == [pairs[2 * index + index % 2] for index in range(len(examples()))]


def test_sft_learns_the_labelled_rows_that_are_true(tokenizer: Any) -> None:
    dataset, cut = completion_rows(labelled(), tokenizer, 96, True)
    assert dataset.to_list() == completion_rows(examples()[::2], tokenizer, 96, True)[0].to_list()
    assert cut.rows == len(dataset) == 10


def test_who_needs_pairs_refuses_labelled_rows_and_names_the_method_for_them(tokenizer: Any) -> None:
    with pytest.raises(UserError, match=r"row synthetic-4-1 has no chosen completion, which .*; method=kto learns"):
        pair_rows(labelled(), tokenizer, 96)
    prompts = [replace(row, chosen=None, rejected=None) for row in examples()]
    with pytest.raises(UserError, match=r"has no chosen completion, which this method learns from$"):
        unpaired_rows(prompts, tokenizer, 96)
