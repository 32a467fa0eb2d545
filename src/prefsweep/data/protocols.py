"""The prompts on which a paper judged its models, where they are not the first N of the test split."""

import random
import re
from collections.abc import Sequence

from prefsweep.config.stages import HarmfulHelpful
from prefsweep.data.schema import PreferenceExample
from prefsweep.errors import UserError


def harmful_helpful(
    protocol: HarmfulHelpful, harmless: Sequence[str], helpful: Sequence[str]
) -> list[PreferenceExample]:
    """Draw prompts from the chosen dialogues of the test files of HH's harmless-base and helpful-base.

    As in arXiv 2509.09055: Python's generator seeded once, a sample of the harmless dialogues that contain one of
    `words` anywhere (in the completion too, and in "skill"), then one of the helpful ones from the same generator.
    """
    rng = random.Random(protocol.seed)
    matching = [row for row in enumerate(harmless) if mentions(row[1], protocol)]
    samples = {
        "harmful": draw(rng, matching, protocol.harmful, "harmful"),
        "helpful": draw(rng, list(enumerate(helpful)), protocol.helpful, "helpful"),
    }
    return [
        PreferenceExample(f"{kind}-{number}", prompt(text), prompt(text), completion(text), None, kind)
        for kind, rows in samples.items()
        for number, text in rows
    ]


def mentions(dialogue: str, protocol: HarmfulHelpful) -> bool:
    """Whether a dialogue contains one of the words; without words every dialogue does."""
    edge = r"\b" if protocol.whole_words else ""
    return not protocol.words or any(re.search(f"{edge}{re.escape(word)}{edge}", dialogue) for word in protocol.words)


def draw(rng: random.Random, rows: list[tuple[int, str]], count: int, name: str) -> list[tuple[int, str]]:
    if count > len(rows):
        raise UserError(
            f"protocol.{name}={count}: only {len(rows)} rows of the test file qualify; lower it, or leave out words"
        )
    return rng.sample(rows, count)


def blocks(dialogue: str) -> tuple[list[str], str | None]:
    """Return the blocks before the last completion, and that completion's block if the dialogue ends with one."""
    parts = dialogue.strip().split("\n\n")
    return (parts[:-1], parts[-1]) if parts[-1].startswith("Assistant:") else (parts, None)


def prompt(dialogue: str) -> str:
    """Return the dialogue without the last completion and, as in the paper, without an `Assistant:` after it."""
    return "\n\n".join(blocks(dialogue)[0])


def completion(dialogue: str) -> str | None:
    """Return the last block if it is a completion: one of several paragraphs leaves its first ones in the prompt."""
    last = blocks(dialogue)[1]
    return last.removeprefix("Assistant:") if last else None
