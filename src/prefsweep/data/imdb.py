"""imdb: film reviews. A prompt is the first few tokens of one, by the policy's tokenizer; the rest is how it goes on.

There are no pairs, and the label (was it a good film?) is never shown: a scorer says which answers are positive.
"""

import re
from collections.abc import Iterator
from typing import Any

from prefsweep.config import IMDBConfig
from prefsweep.data.files import read
from prefsweep.data.layout import files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import drawn, published
from prefsweep.data.tally import Examples, Tally

BREAKS = re.compile(r"(\s*<br\s*/?>\s*)+", flags=re.IGNORECASE)
CHARACTERS = 40  # of the text a token, at most, that are given to the tokenizer: reading the whole would be for nothing


def names(dataset: IMDBConfig) -> list[str]:
    """The files it is read from."""
    return ["plain_text/train", "plain_text/test"]


def load(dataset: IMDBConfig, split: str, tokenizer: Any) -> Examples:
    located = files(dataset, names(dataset))

    def examples(part: str, tally: Tally) -> Iterator[PreferenceExample]:
        for number, row in enumerate(read(located[f"plain_text/{part}"]), start=1):
            tally.read += 1
            text = row.text("text")
            review = BREAKS.sub(" ", text).strip()
            if len(text) <= dataset.over_characters or not review:
                tally.drop("short")
                continue
            yield PreferenceExample(f"{part}-{number}", review, "", review, None)

    found = published(dataset, split, examples)
    if tokenizer is None:
        return found
    return Examples(cut(dataset, found, tokenizer), found.tally, split)


def cut(dataset: IMDBConfig, whole: Examples, tokenizer: Any) -> Iterator[PreferenceExample]:
    """Each review in two, where its first tokens end."""
    least, most = dataset.query_tokens
    heads = [example.group[: CHARACTERS * most] for example in whole]
    ends = tokenizer(heads, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for example, spans in zip(whole, ends, strict=True):
        count = least + drawn(dataset.seed, "query", example.id) % (most - least + 1)
        _, place = spans[min(count, len(spans)) - 1]
        if place == len(example.group):  # no more than a word, and tags
            whole.tally.drop("short")
            continue
        yield PreferenceExample(example.id, example.group, example.group[:place], example.group[place:], None)
