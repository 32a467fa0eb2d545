"""imdb: film reviews. A prompt is the first few tokens of one, by the policy's tokenizer; the rest is how it goes on.

There are no pairs of completions: a scorer ranks them. The label (is the review positive?) is for training a scorer.
"""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from prefsweep.config.schema import IMDBConfig
from prefsweep.data.files import LABELS, Row, read
from prefsweep.data.layout import files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import FileSplits, Splits, stable_hash
from prefsweep.data.tally import Examples
from prefsweep.data.tokens import encoded, tokenizer_identity

BREAKS = re.compile(r"(\s*<br\s*/?>\s*)+", flags=re.IGNORECASE)
CHARACTERS = 12  # of a text for each of its tokens that are looked for: enough for nearly all
CHUNK = 1024  # reviews in one call of the tokenizer


def file_names(dataset: IMDBConfig) -> list[str]:
    return ["plain_text/train", "plain_text/test"]


def load(dataset: IMDBConfig) -> Splits:
    return ReviewSplits(dataset)


class ReviewSplits(FileSplits):
    """The splits with whole reviews as completions; those with prompts are held by tokenizer."""

    dataset: IMDBConfig

    def __init__(self, dataset: IMDBConfig):
        super().__init__(dataset, self.reviews)
        self.by_tokenizer: dict[str | None, PromptSplits] = {}

    def reviews(self, part: str) -> Iterator[PreferenceExample | str]:
        located = files(self.dataset, file_names(self.dataset))
        for number, row in enumerate(read(located[f"plain_text/{part}"]), start=1):
            text = row.text("text")
            review = BREAKS.sub(" ", text).strip()
            if len(text) <= self.dataset.over_characters or not review:
                yield "short"
            else:
                yield PreferenceExample(f"{part}-{number}", review, "", review, None, label=label_of(row))

    def for_tokenizer(self, tokenizer: Any) -> Splits:
        if tokenizer is None:
            return self
        # it is a fast one: only those know where in a text a token ends
        return self.by_tokenizer.setdefault(tokenizer_identity(tokenizer), PromptSplits(self, tokenizer))


def label_of(row: Row) -> bool | None:
    """Return whether a review is positive; None where its file does not say."""
    return LABELS.get(str(row.values.get("label")))


class PromptSplits(Splits):
    """Each review divided into a prompt, its first tokens, and a completion, the rest."""

    def __init__(self, reviews: ReviewSplits, tokenizer: Any):
        super().__init__()
        self.reviews = reviews
        self.tokenizer = tokenizer

    def compute(self, split: str) -> Examples:
        tally = deepcopy(self.reviews[split].tally)
        return Examples(tally.filter_rows(self.divide(self.reviews[split])), tally, split)

    def divide(self, reviews: Examples) -> Iterator[PreferenceExample | str]:
        dataset = self.reviews.dataset
        least, most = dataset.query_tokens
        for first in range(0, len(reviews), CHUNK):
            examples = reviews[first : first + CHUNK]
            ends = first_ends([example.group for example in examples], self.tokenizer, most)
            for example, ends_of_tokens in zip(examples, ends, strict=True):
                count = least + stable_hash(dataset.seed, "query", example.id) % (most - least + 1)
                end = ends_of_tokens[min(count, len(ends_of_tokens)) - 1]
                if end == len(example.group):  # one word and tags
                    yield "short"
                else:
                    yield PreferenceExample(example.id, example.group, example.group[:end], example.group[end:], None)


def first_ends(texts: list[str], tokenizer: Any, count: int) -> list[list[int]]:
    """Return the index in its text at which each of a text's first `count` tokens ends.

    Only a text's first words are tokenised, whole words, so that their tokens are also those of the text.
    """
    beginnings = [" ".join(text[: CHARACTERS * count].split(" ")[:-1]) for text in texts]
    ends = ends_of(beginnings, tokenizer, count)
    for index, ends_of_text in enumerate(ends):
        if len(ends_of_text) < count:
            (ends[index],) = ends_of([texts[index]], tokenizer, count)
    return ends


def ends_of(texts: list[str], tokenizer: Any, count: int) -> list[list[int]]:
    settings = {"truncation": True, "max_length": count, "return_offsets_mapping": True}
    spans = encoded(texts, tokenizer, add_special_tokens=False, **settings)["offset_mapping"]
    return [[end for _, end in spans_of_text] for spans_of_text in spans]
