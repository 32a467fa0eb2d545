"""An offline world of short movie reviews whose true reward is known exactly.

A review has a mood, positive or negative with equal chance, and three or four sentences. Each sentence agrees with
the mood, is neutral or disagrees; it fills one template of `lexicon`. Because the grammar is that list of templates and
nothing else, a text can be checked exactly. Only complete, well-formed sentences earn reward, so a policy gains nothing
by breaking the grammar.

Equal arguments give equal output on every machine: all randomness comes from `random.Random.random`, the one
generator method whose sequence Python promises to keep, and no result depends on the order of a set.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from random import Random
from typing import TypeVar

from prefsweep.data.datasets.lexicon import CLASSES, OPINIONS, REMARKS, SENTIMENT
from prefsweep.data.schema import PreferenceExample

T = TypeVar("T")

SENTENCES = (3, 4)
PROMPT_WORDS = (4, 5, 6)
NEAR_TIE = 0.2  # two completions whose true rewards differ by less are not labelled
NEUTRAL_TO_OPPOSITE = 10 / 3  # at coherence .74 this gives .74 same, .20 neutral, .06 opposite

SIGN: dict[str, int] = {
    word: sign for lists in SENTIMENT.values() for sign, words in zip((1, -1), lists, strict=True) for word in words
}
NEGATORS = frozenset(CLASSES["not"])


@dataclass(frozen=True, slots=True)
class Shape:
    """A template as the words that are possible at each of its positions.

    A word carries its capital and its punctuation, so a sentence is exactly its words joined by single spaces.
    """

    positions: tuple[tuple[str, ...], ...]

    def starts(self, words: Sequence[str]) -> bool:
        """Whether `words` begin a sentence of this shape, or are one if there are as many words as positions."""
        return len(words) <= len(self.positions) and all(
            word in position for word, position in zip(words, self.positions, strict=False)
        )

    def chance(self, words: Sequence[str]) -> float:
        """Return the probability that a sentence of this shape begins with `words`, given that it can."""
        return prod(1 / len(position) for position in self.positions[: len(words)])


def _options(piece: str, polarity: int) -> tuple[str, ...]:
    """Return the words that one piece of a template stands for, with punctuation; polarity 0 has both sentiments."""
    match = re.fullmatch(r"\{(-?)(\w+)\}(\W?)", piece)
    if match is None:
        return (piece,)
    minus, name, tail = match.groups()
    if name in CLASSES:
        words = CLASSES[name]
    else:
        positive, negative = SENTIMENT[name]
        words = {0: positive + negative, 1: positive, -1: negative}[-polarity if minus else polarity]
    return tuple(word + tail for word in words)


def _shape(template: str, polarity: int) -> Shape:
    first, *rest = (_options(piece, polarity) for piece in template.split())
    return Shape((tuple(word[0].upper() + word[1:] for word in first), *rest))


WRITTEN: dict[int, tuple[Shape, ...]] = {
    polarity: tuple(_shape(template, polarity) for template in (OPINIONS if polarity else REMARKS))
    for polarity in (1, 0, -1)
}
GRAMMAR = tuple(_shape(template, 0) for template in OPINIONS + REMARKS)


# --- scoring a text ---------------------------------------------------------------------------------------------


def _sentences(text: str) -> list[str]:
    """Return the sentences of a text; joined by single spaces they are the text again."""
    *complete, last = text.split(". ")
    return [sentence + "." for sentence in complete] + [last]


@lru_cache(maxsize=100_000)
def _well_formed(sentence: str) -> bool:
    words = sentence.split(" ")
    return any(len(words) == len(shape.positions) and shape.starts(words) for shape in GRAMMAR)


def well_formed_share(text: str) -> float:
    """Return the share of a text's sentences that fit a template exactly, from 0 to 1.

    A sentence that praises and blames at once is well-formed, although the world's own sentences never do both.
    A last sentence without its full stop counts as a sentence that is not well-formed, so that a policy that never
    finishes scores lower; so does anything else that is not exactly a sentence, such as the rest after a double space.
    An empty text scores 0.
    """
    sentences = _sentences(text)
    return sum(map(_well_formed, sentences)) / len(sentences)


def _signed_words(sentence: str) -> set[tuple[str, int]]:
    """Return the sentiment words of a sentence with their signs; a negator flips the sign of the next one."""
    signed: set[tuple[str, int]] = set()
    flip = 1
    for word in re.findall(r"\w+", sentence.lower()):
        if word in NEGATORS:
            flip = -1
        elif word in SIGN:
            signed.add((word, flip * SIGN[word]))
            flip = 1
    return signed


def true_reward(text: str) -> float:
    """Return how favourable a review is: (p - n) / (p + n + 1), strictly between -1 and 1.

    p and n count the distinct words used positively and negatively, in well-formed sentences alone. Repeating a word
    earns nothing, and neither does word salad.
    """
    words = {word for part in _sentences(text) if _well_formed(part) for word in _signed_words(part)}
    positive = sum(sign > 0 for _, sign in words)
    negative = len(words) - positive
    return (positive - negative) / (positive + negative + 1)


# --- drawing a text ---------------------------------------------------------------------------------------------


def _pick(rng: Random, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    return rng.choices(options, weights)[0]  # `choices` is built on `random` alone, `choice` is not


def _polarity_chances(mood: int, coherence: float) -> dict[int, float]:
    """Return the probability of each polarity for a sentence of a review in this mood."""
    opposite = (1 - coherence) / (1 + NEUTRAL_TO_OPPOSITE)
    return {mood: coherence, 0: NEUTRAL_TO_OPPOSITE * opposite, -mood: opposite}


def _fill(rng: Random, shape: Shape, words: Sequence[str] = ()) -> str:
    """Draw a sentence of this shape that begins with `words`."""
    return " ".join([*words, *(_pick(rng, position) for position in shape.positions[len(words) :])])


def _sentence(rng: Random, mood: int, coherence: float) -> str:
    chances = _polarity_chances(mood, coherence)
    polarity = _pick(rng, tuple(chances), tuple(chances.values()))
    return _fill(rng, _pick(rng, WRITTEN[polarity]))


def _review(rng: Random, first: str, mood: int, coherence: float) -> str:
    """Draw the rest of a review in this mood whose first sentence is given."""
    more = _pick(rng, SENTENCES) - 1
    return " ".join([first, *(_sentence(rng, mood, coherence) for _ in range(more))])


@lru_cache(maxsize=10_000)
def _first_sentences(prompt: str, coherence: float) -> tuple[tuple[tuple[int, Shape], ...], tuple[float, ...]]:
    """Return every (mood, shape) of a first sentence that begins with `prompt`, and their weights by Bayes' rule."""
    words = prompt.split(" ")
    weighted = [
        ((mood, shape), chance * shape.chance(words) / len(WRITTEN[polarity]))
        for mood in (1, -1)
        for polarity, chance in _polarity_chances(mood, coherence).items()
        for shape in WRITTEN[polarity]
        if shape.starts(words)
    ]
    causes, weights = zip(*weighted, strict=True)
    return causes, weights


def _continue(rng: Random, prompt: str, coherence: float) -> str:
    """Draw a review on the condition that it begins with `prompt`."""
    mood, shape = _pick(rng, *_first_sentences(prompt, coherence))
    return _review(rng, _fill(rng, shape, prompt.split(" ")), mood, coherence)


def reviews(count: int, *, seed: int, coherence: float) -> list[str]:
    """Draw `count` well-formed reviews; a larger count begins with the same ones.

    `coherence` is the probability that a sentence agrees with its review's mood; the rest are neutral or opposite, ten
    to three.
    """
    rng = Random(f"reviews {seed}")  # a string is hashed with SHA-512, so it seeds alike everywhere
    drawn: list[str] = []
    for _ in range(count):
        mood = _pick(rng, (1, -1))
        drawn.append(_review(rng, _sentence(rng, mood, coherence), mood, coherence))
    return drawn


def preferences(count: int, *, seed: int, coherence: float, noise: float) -> list[PreferenceExample]:
    """Draw `count` prompts, each with two completions ranked by the true reward of prompt and completion together.

    A prompt is the first four to six words of a review, and its completions are independent draws of the rest.
    Near-ties are redrawn. With probability `noise` a label is flipped; `noise` changes nothing else, so rows of two
    noise levels differ only in which completion is chosen.
    """
    rng = Random(f"preferences {seed}")
    rows: list[PreferenceExample] = []
    while len(rows) < count:
        words = _sentence(rng, _pick(rng, (1, -1)), coherence).split(" ")
        prompt = " ".join(words[: _pick(rng, PROMPT_WORDS)])
        better, worse = sorted((_continue(rng, prompt, coherence) for _ in "ab"), key=true_reward, reverse=True)
        if true_reward(better) - true_reward(worse) < NEAR_TIE:
            continue
        if rng.random() < noise:
            better, worse = worse, better
        completions = (better.removeprefix(prompt), worse.removeprefix(prompt))
        rows.append(PreferenceExample(f"synthetic-{seed}-{len(rows)}", prompt, prompt, *completions))
    return rows
