"""imdb: film reviews. A prompt is the first few tokens of one, by the policy's tokenizer; the rest is how it goes on.

There are no pairs, and the label (was it a good film?) is never shown: a scorer says which answers are positive.
"""

import re
from collections.abc import Iterator
from typing import Any

from prefsweep.config.schema import IMDBConfig
from prefsweep.data.files import read
from prefsweep.data.layout import files
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.splits import drawn, published
from prefsweep.data.tally import Examples, Tally

BREAKS = re.compile(r"(\s*<br\s*/?>\s*)+", flags=re.IGNORECASE)
CHARACTERS = 12  # of a text for each of its tokens that are looked for: enough for nearly all
CHUNK = 1024  # reviews that a tokenizer is given at once


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
    for first in range(0, len(whole), CHUNK):
        examples = whole[first : first + CHUNK]
        ends = first_ends([example.group for example in examples], tokenizer, most)
        for example, places in zip(examples, ends, strict=True):
            count = least + drawn(dataset.seed, "query", example.id) % (most - least + 1)
            place = places[min(count, len(places)) - 1]
            if place == len(example.group):  # no more than a word, and tags
                whole.tally.drop("short")
                continue
            yield PreferenceExample(example.id, example.group, example.group[:place], example.group[place:], None)


def first_ends(texts: list[str], tokenizer: Any, count: int) -> list[list[int]]:
    """Where each of a text's first `count` tokens ends. A few words tell, whole ones: only then are they the text's."""
    few = [" ".join(text[: CHARACTERS * count].split(" ")[:-1]) for text in texts]
    found = ends_of(few, tokenizer, count)
    for number, places in enumerate(found):
        if len(places) < count:
            (found[number],) = ends_of([texts[number]], tokenizer, count)
    return found


def ends_of(texts: list[str], tokenizer: Any, count: int) -> list[list[int]]:
    settings = {"truncation": True, "max_length": count, "return_offsets_mapping": True}
    spans = tokenizer(texts, add_special_tokens=False, **settings)["offset_mapping"]
    return [[end for _, end in of_one] for of_one in spans]
