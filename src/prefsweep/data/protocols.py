"""Which prompts a paper judged its models on, where that is not the first N of the test split."""

import random
import re
from collections.abc import Sequence

from prefsweep.config.stages import HarmfulHelpful
from prefsweep.data.schema import PreferenceExample
from prefsweep.errors import UserError


def harmful_helpful(
    protocol: HarmfulHelpful, harmless: Sequence[str], helpful: Sequence[str]
) -> list[PreferenceExample]:
    """Prompts from the chosen transcripts of the test files of HH's harmless-base and helpful-base.

    As arXiv 2509.09055 draws them: Python's generator seeded once, a sample of the harmless transcripts that hold one
    of `words` anywhere (in the answer too, and in "skill"), then one of the helpful ones from the same stream.
    """
    rng = random.Random(protocol.seed)
    found = [row for row in enumerate(harmless) if mentions(row[1], protocol)]
    drawn = {
        "harmful": draw(rng, found, protocol.harmful, "harmful"),
        "helpful": draw(rng, list(enumerate(helpful)), protocol.helpful, "helpful"),
    }
    return [
        PreferenceExample(f"{kind}-{number}", question(text), question(text), completion(text), None, kind)
        for kind, rows in drawn.items()
        for number, text in rows
    ]


def mentions(transcript: str, protocol: HarmfulHelpful) -> bool:
    """Whether it holds one of the words; without words every transcript does."""
    edge = r"\b" if protocol.whole_words else ""
    return not protocol.words or any(re.search(f"{edge}{re.escape(word)}{edge}", transcript) for word in protocol.words)


def draw(rng: random.Random, rows: list[tuple[int, str]], wanted: int, name: str) -> list[tuple[int, str]]:
    if wanted > len(rows):
        raise UserError(
            f"stages.generate.protocol.{name}={wanted}: only {len(rows)} rows of the test file qualify; lower it, or "
            "leave out words"
        )
    return rng.sample(rows, wanted)


def blocks(transcript: str) -> tuple[list[str], str | None]:
    """The turns up to the last answer, and that answer's block, where the transcript ends with one."""
    parts = transcript.strip().split("\n\n")
    return (parts[:-1], parts[-1]) if parts[-1].startswith("Assistant:") else (parts, None)


def question(transcript: str) -> str:
    """Without the last answer, and, as the paper has it, with no `Assistant:` for the model to go on from."""
    return "\n\n".join(blocks(transcript)[0])


def completion(transcript: str) -> str | None:
    """The last block, where it is an answer: an answer of several paragraphs leaves its first ones in the question."""
    last = blocks(transcript)[1]
    return last.removeprefix("Assistant:") if last else None
