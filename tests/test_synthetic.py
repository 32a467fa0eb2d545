"""The synthetic world promises an exact grammar, an exact reward, and the same rows on every machine."""

from itertools import chain, pairwise
from statistics import fmean

import pytest

from prefsweep.data.datasets.lexicon import CLASSES, OPINIONS, REMARKS, SENTIMENT
from prefsweep.data.datasets.synthetic import PROMPT_WORDS, preferences, reviews, true_reward, well_formed_share

GOOD = "The acting was wonderfully superb from start to finish."
BAD = "The script in this movie was terribly dull."
NOT_BAD = "My boss would never call this comedy a disaster."
PLAIN = "I watched this drama last Friday with my sister."


def test_equal_arguments_give_equal_texts_on_every_machine() -> None:
    (review,) = reviews(1, seed=0, coherence=0.74)
    assert review == (
        "As a familiar whodunit, this release is a shallow disaster. Meanwhile, the acting of this "
        "picture felt terribly bland. Thanks to its camerawork, this painful romance is a disgrace."
    )
    (row,) = preferences(1, seed=0, coherence=0.74, noise=0.1)
    assert (row.id, row.group, row.prompt) == ("synthetic-0-0", row.prompt, "Like my friend, I hated the")
    assert row.chosen == (
        " dull casting of this show. The opening in the subway was great and left me happy. The "
        "local flashback of this production was painfully filmed. The long opening of this movie "
        "was dreadfully filmed."
    )


def test_more_rows_begin_with_the_same_rows_and_another_seed_gives_others() -> None:
    assert reviews(20, seed=1, coherence=0.74)[:5] == reviews(5, seed=1, coherence=0.74)
    assert not set(reviews(50, seed=1, coherence=0.74)) & set(reviews(50, seed=2, coherence=0.74))
    few, many = (preferences(count, seed=1, coherence=0.74, noise=0.1) for count in (5, 20))
    assert many[:5] == few


def test_every_review_is_well_formed_and_of_the_promised_length() -> None:
    texts = reviews(2000, seed=3, coherence=0.74)
    assert {well_formed_share(text) for text in texts} == {1.0}
    assert {text.count(".") for text in texts} == {3, 4}
    assert 30 <= fmean(len(text.split()) for text in texts) <= 36
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (GOOD, 1.0),
        (f"{GOOD} {PLAIN} {BAD}", 1.0),
        (f"{GOOD} The script in this", 0.5),  # the last sentence was cut off
        (GOOD[:-1], 0.0),
        (GOOD.lower(), 0.0),  # no capital
        (f"{GOOD}  {PLAIN}", 0.5),  # a doubled space
        (f"{GOOD} ", 0.5),  # a space after the end
        (f" {GOOD}", 0.0),
        (f"{GOOD}\n{PLAIN}", 0.0),
        (GOOD.replace("superb", "acting"), 0.0),  # a word of the wrong class
        (GOOD.replace("superb", "superb superb"), 0.0),
        ("The score was never dull.", 0.0),  # plain English, but no template
        ("", 0.0),
    ],
)
def test_the_grammar_check_is_exact(text: str, share: float) -> None:
    assert well_formed_share(text) == share


def test_a_sentence_that_praises_and_blames_is_well_formed_and_earns_nothing() -> None:
    mixed = "The director handled the finale beautifully, and the score was dull."
    assert well_formed_share(mixed) == 1.0
    assert true_reward(mixed) == 0.0


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (GOOD, 2 / 3),
        (BAD, -2 / 3),
        (PLAIN, 0.0),
        (NOT_BAD, 1 / 2),  # "never ... disaster" praises
        ("In the climax, the actor was hardly brilliant.", -1 / 2),
        ("The writer played every scene painfully and looked boring.", -2 / 3),
        (f"{GOOD} {NOT_BAD}", 3 / 4),
        (f"{GOOD} {BAD}", 0.0),
        (f"{GOOD} {NOT_BAD} {BAD}", 1 / 6),
        (f"{GOOD} {GOOD} {GOOD}", 2 / 3),  # the same word again earns nothing
        (f"{GOOD} The acting was wonderfully brilliant from start to", 2 / 3),  # nor does an unfinished sentence
        ("superb brilliant wonderful charming delightful.", 0.0),  # nor does word salad
        ("The superb superb brilliant acting loved masterpiece. Superb. Gem.", 0.0),
        ("", 0.0),
    ],
)
def test_the_reward_is_the_written_formula(text: str, reward: float) -> None:
    assert true_reward(text) == pytest.approx(reward)


def test_good_and_bad_are_equally_likely() -> None:
    rewards = [true_reward(text) for text in reviews(20_000, seed=4, coherence=0.74)]
    assert abs(fmean(rewards)) < 0.02  # four standard errors
    assert all(-1 < reward < 1 for reward in rewards)
    assert all(len(positive) == len(negative) for positive, negative in SENTIMENT.values())


def test_coherence_makes_the_sentences_of_a_review_agree() -> None:
    strengths = [
        fmean(abs(true_reward(text)) for text in reviews(2000, seed=5, coherence=coherence))
        for coherence in (0.4, 0.74, 1.0)
    ]
    assert strengths == sorted(strengths)
    assert all(abs(true_reward(text)) >= 1 / 2 for text in reviews(200, seed=5, coherence=1.0))


def test_both_answers_continue_the_prompt_into_a_whole_review() -> None:
    rows = preferences(1000, seed=6, coherence=0.74, noise=0.0)
    assert len(rows) == 1000
    assert len({row.id for row in rows}) == 1000
    for row in rows:
        assert len(row.prompt.split()) in PROMPT_WORDS
        for completion in (row.chosen, row.rejected):
            assert completion.startswith(" ")
            assert well_formed_share(row.prompt + completion) == 1.0


def test_without_noise_the_chosen_answer_is_clearly_the_better_one() -> None:
    gaps = [
        true_reward(row.prompt + row.chosen) - true_reward(row.prompt + row.rejected)
        for row in preferences(1000, seed=6, coherence=0.74, noise=0.0)
    ]
    assert min(gaps) >= 0.2


@pytest.mark.parametrize("noise", [0.1, 0.4, 1.0])
def test_noise_flips_its_share_of_labels_and_changes_nothing_else(noise: float) -> None:
    clean = preferences(2000, seed=7, coherence=0.74, noise=0.0)
    noisy = preferences(2000, seed=7, coherence=0.74, noise=noise)
    flipped = [(a.chosen, a.rejected) == (b.rejected, b.chosen) for a, b in zip(clean, noisy, strict=True)]
    assert all((a == b) != flip for a, b, flip in zip(clean, noisy, flipped, strict=True))
    assert fmean(flipped) == pytest.approx(noise, abs=0.035)


def test_most_prompts_of_another_seed_were_never_seen() -> None:
    seen = {row.prompt for row in preferences(2000, seed=8, coherence=0.74, noise=0.0)}
    fresh = [row.prompt not in seen for row in preferences(500, seed=9, coherence=0.74, noise=0.0)]
    assert fmean(fresh) > 0.6


def test_the_lexicon_keeps_its_three_rules() -> None:
    sentiment = chain.from_iterable(chain.from_iterable(SENTIMENT.values()))
    words = [word.lower() for word in chain(chain.from_iterable(CLASSES.values()), sentiment)]
    assert len(words) == len(set(words)) >= 250
    assert all(len(template.split()) > max(PROMPT_WORDS) for template in OPINIONS + REMARKS)
    for text in reviews(2000, seed=10, coherence=0.74):
        words = text.split()
        assert not any(word.lower() == "a" and after[0] in "aeiou" for word, after in pairwise(words))
