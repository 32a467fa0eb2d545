"""Token ids and masks as the trainers get them."""

from typing import Any

from prefsweep.data.schema import PreferenceExample
from prefsweep.data.synthetic import preferences
from prefsweep.data.views import IGNORED, Truncation, answer_rows, encode_answers, encode_prompts, pair_rows, text_rows


def examples() -> list[PreferenceExample]:
    return preferences(20, seed=4, coherence=0.74, noise=0.0)


def test_prompt_and_answer_tokens_are_the_tokens_of_the_whole(tokenizer: Any) -> None:
    rows = examples()
    prompts = encode_prompts([row.prompt for row in rows], tokenizer)
    answers = encode_answers([row.chosen for row in rows], tokenizer)
    for row, prompt, answer in zip(rows, prompts, answers, strict=True):
        assert prompt + answer[:-1] == tokenizer(row.prompt + row.chosen)["input_ids"]


def test_every_answer_ends_with_eos_which_is_learned_and_is_not_pad(tokenizer: Any) -> None:
    dataset, _ = answer_rows(examples(), tokenizer, 160, "answer")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for row in dataset:
        assert row["labels"][-1] == row["input_ids"][-1] == tokenizer.eos_token_id


def test_the_prompt_is_read_and_learned_only_when_asked(tokenizer: Any) -> None:
    rows = examples()
    prompts = encode_prompts([row.prompt for row in rows], tokenizer)
    answer_only, _ = answer_rows(rows, tokenizer, 160, "answer")
    everything, _ = answer_rows(rows, tokenizer, 160, "all")
    for prompt, row, whole in zip(prompts, answer_only, everything, strict=True):
        assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)
        assert row["labels"][len(prompt) :] == row["input_ids"][len(prompt) :]
        assert whole["labels"] == whole["input_ids"] == row["input_ids"]


def test_the_prompts_beginning_goes_before_the_answers_end() -> None:
    cut = Truncation()
    assert cut.fit([1, 2, 3, 4], [[5, 6, 7], [8, 9]], max_length=5) == ([3, 4], [[5, 6, 7], [8, 9]])
    assert cut.fit([1, 2], [[5, 6, 7], [8]], max_length=3) == ([2], [[5, 6], [8]])
    assert cut.fit([1, 2], [[5]], max_length=3) == ([1, 2], [[5]])
    assert cut.metrics() == {"rows": 3, "prompts_truncated": 2, "answers_truncated": 1}


def test_both_answers_of_a_pair_share_one_prompt(tokenizer: Any) -> None:
    rows = examples()
    dataset, cut = pair_rows(rows, tokenizer, 160)
    assert cut.prompts == cut.answers == 0
    for row, example in zip(dataset, rows, strict=True):
        assert tokenizer.decode(row["prompt_ids"]) == example.prompt
        assert tokenizer.decode(row["chosen_ids"][:-1]) == example.chosen
        assert tokenizer.decode(row["rejected_ids"][:-1]) == example.rejected


def test_a_pretraining_text_is_learned_whole(tokenizer: Any) -> None:
    (row,) = text_rows([examples()[0].prompt], tokenizer, 160)
    assert row["labels"] == row["input_ids"] == [*tokenizer(examples()[0].prompt)["input_ids"], tokenizer.eos_token_id]


def test_an_empty_prompt_still_gives_the_model_something_to_read(tokenizer: Any) -> None:
    assert encode_prompts([""], tokenizer) == [[tokenizer.eos_token_id]]
