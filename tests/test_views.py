"""Token ids and masks as the trainers get them."""

from typing import Any

import pytest

from prefsweep.data.datasets.synthetic import preferences
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.truncation import Truncation
from prefsweep.data.views import IGNORED, completion_rows, encode_completions, encode_prompts, pair_rows, text_rows


def examples() -> list[PreferenceExample]:
    return preferences(20, seed=4, coherence=0.74, noise=0.0)


def test_prompt_and_answer_tokens_are_the_tokens_of_the_whole(tokenizer: Any) -> None:
    rows = examples()
    prompts = encode_prompts([row.prompt for row in rows], tokenizer)
    completions = encode_completions([row.chosen for row in rows], tokenizer)
    for row, prompt, completion in zip(rows, prompts, completions, strict=True):
        assert prompt + completion[:-1] == tokenizer(row.prompt + row.chosen)["input_ids"]


def test_every_answer_ends_with_eos_which_is_learned_and_is_not_pad(tokenizer: Any) -> None:
    dataset, _ = completion_rows(examples(), tokenizer, 160, "completion")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for row in dataset:
        assert row["labels"][-1] == row["input_ids"][-1] == tokenizer.eos_token_id


def test_the_prompt_is_read_and_learned_only_when_asked(tokenizer: Any) -> None:
    rows = examples()
    prompts = encode_prompts([row.prompt for row in rows], tokenizer)
    completion_only, _ = completion_rows(rows, tokenizer, 160, "completion")
    everything, _ = completion_rows(rows, tokenizer, 160, "all")
    for prompt, row, whole in zip(prompts, completion_only, everything, strict=True):
        assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)
        assert row["labels"][len(prompt) :] == row["input_ids"][len(prompt) :]
        assert whole["labels"] == whole["input_ids"] == row["input_ids"]


def test_the_prompts_beginning_goes_before_the_answers_end() -> None:
    cut = Truncation()
    assert cut.fit([1, 2, 3, 4], [[5, 6, 7], [8, 9]], max_length=5) == ([3, 4], [[5, 6, 7], [8, 9]])
    assert cut.fit([1, 2], [[5, 6, 7], [8]], max_length=3) == ([2], [[5, 6], [8]])
    assert cut.fit([1, 2], [[5]], max_length=3) == ([1, 2], [[5]])
    assert cut.metrics() == {"rows": 3, "prompts_truncated": 2, "completions_truncated": 1}


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
    rows = [PreferenceExample(str(place), prompt, *texts) for place, (prompt, *texts) in enumerate(with_group(SEAMS))]
    dataset, cut = pair_rows(rows, tokenizer, 96)
    for row, example in zip(dataset, rows, strict=True):
        for side in ("chosen", "rejected"):
            tokens = row["prompt_ids"] + row[f"{side}_ids"]
            expected = tokenizer(example.prompt + example.completion(side))["input_ids"]
            beginning = [tokenizer.eos_token_id] if tokens[0] != expected[0] else []
            assert tokens == [*beginning, *expected, tokenizer.eos_token_id], example
    assert cut.merged and cut.metrics()["boundaries_merged"] == cut.merged
    assert pair_rows(rows[:1], tokenizer, 96)[1].merged == 0


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


@pytest.mark.parametrize("max_length", [2, 3, 8, 20, 96])
def test_eos_is_learned_after_every_cut(max_length: int, tokenizer: Any) -> None:
    rows, eos = examples(), tokenizer.eos_token_id
    pairs, cut = pair_rows(rows, tokenizer, max_length)
    for row in pairs:
        longest = max(len(row[side]) for side in ("chosen_ids", "rejected_ids"))
        assert 1 <= len(row["prompt_ids"]) <= max_length - longest
        assert row["chosen_ids"][-1] == row["rejected_ids"][-1] == eos
    for learn in ("completion", "all"):
        for row in completion_rows(rows, tokenizer, max_length, learn)[0]:
            assert row["labels"][-1] == row["input_ids"][-1] == eos and len(row["labels"]) <= max_length
    assert (cut.completions > 0) == (max_length <= 20)


def test_eos_is_learned_where_it_is_the_pad_token_too(tokenizer: Any) -> None:
    from copy import deepcopy

    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    shared = deepcopy(tokenizer)
    shared.pad_token = shared.eos_token
    rows = completion_rows(examples()[:4], shared, 96, "completion")[0].to_list()
    batch = DataCollatorForLanguageModeling(pad_token_id=shared.pad_token_id)(rows)
    for row, labels, attention in zip(rows, batch["labels"].tolist(), batch["attention_mask"].tolist(), strict=True):
        length = len(row["input_ids"])
        assert labels[:length] == row["labels"] and labels[length - 1] == shared.eos_token_id
        assert set(labels[length:]) <= {IGNORED} and sum(attention) == length
