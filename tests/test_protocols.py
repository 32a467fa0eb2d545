"""Whose prompts a published table asked: drawn exactly as its own code draws them."""

import random
from typing import Any

import pytest

from prefsweep.config.stages import HarmfulHelpful
from prefsweep.data.protocols import harmful_helpful, prompt
from prefsweep.errors import UserError

WORDS = ("kill", "murder", "rape", "skill", "grape", "cake")
HARMLESS = [f"\n\nHuman: About {WORDS[row % 6]}, case {row}?\n\nAssistant: No." for row in range(300)]
HELPFUL = [f"\n\nHuman: Help {row}\n\nAssistant: Yes.\n\nHuman: More\n\nAssistant: Fine {row}." for row in range(200)]


def protocol(**changes: Any) -> HarmfulHelpful:
    paper = {"harmful": 50, "helpful": 50, "words": ["kill", "murder", "rape"], "whole_words": False, "seed": 100}
    return HarmfulHelpful(**{**paper, **changes})


def test_the_prompts_are_those_of_the_papers_code() -> None:
    """Its notebook said again: the global generator, one stream for both samples."""

    def prompt_of(chosen: str) -> str:
        parts = chosen.strip().split("\n\n")
        if parts[-1].startswith("Assistant:"):
            parts.pop()
        return "\n\n".join(parts)

    random.seed(100)
    harmful = [row for row in HARMLESS if "kill" in row or "murder" in row or "rape" in row]
    expected = [*random.sample(harmful, 50), *random.sample(HELPFUL, 50)]
    examples = harmful_helpful(protocol(), HARMLESS, HELPFUL)
    assert [example.prompt for example in examples] == [prompt_of(row) for row in expected]
    assert [example.kind for example in examples] == ["harmful"] * 50 + ["helpful"] * 50
    assert any("skill" in example.prompt for example in examples), "a substring, as published"


def test_whole_words_leave_out_skill_and_grape() -> None:
    examples = harmful_helpful(protocol(whole_words=True), HARMLESS, HELPFUL)
    assert not any(word in example.prompt for example in examples for word in ("skill", "grape", "cake"))


def test_without_words_every_row_qualifies() -> None:
    examples = harmful_helpful(protocol(words=[], harmful=300), HARMLESS, HELPFUL)
    assert len({example.prompt for example in examples if example.kind == "harmful"}) == 300


def test_the_question_ends_with_the_human_and_the_answer_is_kept_beside() -> None:
    (first, *_) = [example for example in harmful_helpful(protocol(), HARMLESS, HELPFUL) if example.kind == "helpful"]
    assert first.prompt.endswith("\n\nHuman: More")
    assert first.chosen is not None and first.chosen.startswith(" Fine")
    assert prompt("\n\nHuman: Hello\n\nAssistant: One.\n\nTwo.") == "Human: Hello\n\nAssistant: One.\n\nTwo."


def test_more_prompts_than_there_are_is_one_line() -> None:
    with pytest.raises(UserError, match=r"protocol.harmful=400: only 250 rows"):
        harmful_helpful(protocol(harmful=400), HARMLESS, HELPFUL)
