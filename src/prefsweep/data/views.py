"""Examples as a trainer reads them: token ids, masks by length (never by token id), EOS at the end of every answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from prefsweep.data.schema import PreferenceExample

IGNORED = -100  # the label of a token that is not learned
Ids = list[int]


@dataclass
class Truncation:
    """What did not fit: counted, so that no answer is cut in silence."""

    rows: int = 0
    prompts: int = 0
    answers: int = 0

    def fit(self, prompt: Ids, answers: Sequence[Ids], max_length: int) -> tuple[Ids, list[Ids]]:
        """The prompt loses its beginning first, down to one token; only then do the answers lose their end."""
        self.rows += 1
        room = max_length - 1
        self.answers += sum(len(answer) > room for answer in answers)
        kept = [answer[:room] for answer in answers]
        prompt_room = max_length - max(map(len, kept))
        self.prompts += len(prompt) > prompt_room
        return prompt[-prompt_room:], kept

    def metrics(self) -> dict[str, int]:
        return {"rows": self.rows, "prompts_truncated": self.prompts, "answers_truncated": self.answers}


def encode_prompts(texts: list[str], tokenizer: Any) -> list[Ids]:
    """With the tokenizer's own beginning (OPT's </s>); an empty prompt becomes one EOS: something must come first."""
    ids: list[Ids] = tokenizer(texts)["input_ids"]
    return [row or [tokenizer.eos_token_id] for row in ids]


def encode_answers(texts: list[str], tokenizer: Any) -> list[Ids]:
    """With EOS, which is always learned, and nothing put before the first token."""
    ids: list[Ids] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [[*row, tokenizer.eos_token_id] for row in ids]


def text_rows(texts: list[str], tokenizer: Any, max_length: int) -> Dataset:
    """Whole texts with the tokenizer's own beginning and EOS, every token learned: for pretraining."""
    rows = [[*row, tokenizer.eos_token_id][:max_length] for row in tokenizer(texts)["input_ids"]]
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def answer_rows(
    examples: Sequence[PreferenceExample], tokenizer: Any, max_length: int, learn: str
) -> tuple[Dataset, Truncation]:
    """Prompt and preferred answer: for SFT. With `learn="answer"` the prompt's tokens are read but not learned."""
    cut = Truncation()
    prompts = encode_prompts([example.prompt for example in examples], tokenizer)
    answers = encode_answers([example.answer("chosen") for example in examples], tokenizer)
    rows: dict[str, list[Ids]] = {"input_ids": [], "labels": []}
    for whole_prompt, whole_answer in zip(prompts, answers, strict=True):
        prompt, (answer,) = cut.fit(whole_prompt, [whole_answer], max_length)
        rows["input_ids"].append(prompt + answer)
        rows["labels"].append((prompt if learn == "all" else [IGNORED] * len(prompt)) + answer)
    return Dataset.from_dict(rows), cut


def pair_rows(examples: Sequence[PreferenceExample], tokenizer: Any, max_length: int) -> tuple[Dataset, Truncation]:
    """Prompt, chosen, rejected, in the columns of TRL's DPOTrainer. Both answers share one truncated prompt."""
    cut = Truncation()
    prompts = encode_prompts([example.prompt for example in examples], tokenizer)
    chosen = encode_answers([example.answer("chosen") for example in examples], tokenizer)
    rejected = encode_answers([example.answer("rejected") for example in examples], tokenizer)
    rows: dict[str, list[Ids]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    for whole_prompt, *answers in zip(prompts, chosen, rejected, strict=True):
        prompt, (better, worse) = cut.fit(whole_prompt, answers, max_length)
        rows["prompt_ids"].append(prompt)
        rows["chosen_ids"].append(better)
        rows["rejected_ids"].append(worse)
    return Dataset.from_dict(rows), cut
