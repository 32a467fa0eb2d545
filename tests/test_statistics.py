"""Intervals and tests against scipy, against definitions, and against thousands of new seeds and prompts."""

import itertools
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from prefsweep.evaluation.by_group import FILE, averaged
from prefsweep.pipeline.files import write_json, write_jsonl
from prefsweep.report import statistics
from prefsweep.report.completions import Completions, summarise
from prefsweep.report.statistics import Array, crossed, effective_size, holm, over_seeds, wilson

RNG = np.random.default_rng(0)
SCRIPT = Path(__file__).parents[1] / "benchmarks/coverage.py"


def one_each(groups: int) -> Array:
    return np.ones(groups)


def test_one_seed_is_students_interval_over_prompts() -> None:
    values = RNG.normal(3, 2, (1, 40))
    estimate = crossed(values, one_each(40))
    low, high = scipy.stats.t.interval(0.95, 39, values.mean(), scipy.stats.sem(values[0]))
    assert estimate is not None
    assert (estimate.mean - estimate.half_width, estimate.mean + estimate.half_width) == pytest.approx(
        (low, high), rel=1e-12
    )
    assert estimate.p_value == pytest.approx(scipy.stats.ttest_1samp(values[0], 0).pvalue, rel=1e-9)


def test_metrics_without_answers_have_students_interval_over_seeds() -> None:
    values = [0.512, 0.587, 0.561]
    estimate = over_seeds(values)
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert estimate is not None and (
        estimate.mean - estimate.half_width,
        estimate.mean + estimate.half_width,
    ) == pytest.approx((low, high), rel=1e-12)
    assert over_seeds([2.0]) is None and crossed(np.array([[1.0]]), one_each(1)) is None


def test_the_crossed_variance_is_that_of_its_three_components() -> None:
    seeds, prompts = 4, 30
    values = RNG.normal(0, 1, (seeds, prompts)) + RNG.normal(0, 1, (seeds, 1)) + RNG.normal(0, 2, (1, prompts))
    rest = sum(
        (values[s, p] - values[s].mean() - values[:, p].mean() + values.mean()) ** 2
        for s, p in itertools.product(range(seeds), range(prompts))
    ) / ((seeds - 1) * (prompts - 1))
    of_seeds = values.mean(1).var(ddof=1) - rest / prompts
    of_prompts = values.mean(0).var(ddof=1) - rest / seeds
    assert of_seeds > 0 and of_prompts > 0
    estimate = crossed(values, one_each(prompts))
    expected = of_seeds / seeds + of_prompts / prompts + rest / (seeds * prompts)
    assert estimate is not None and estimate.variance == pytest.approx(expected, rel=1e-12)
    # Satterthwaite, 1946: degrees = (Σ aᵢ MSᵢ)² / Σ (aᵢ MSᵢ)² / dfᵢ
    squares = [prompts * values.mean(1).var(ddof=1), seeds * values.mean(0).var(ddof=1), -rest]
    degrees = [seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)]
    assert estimate.degrees == pytest.approx(
        sum(squares) ** 2 / sum(m * m / d for m, d in zip(squares, degrees, strict=True))
    )


def test_a_prompt_asked_twice_is_no_second_prompt() -> None:
    """Each row doubled within its group changes nothing; doubled as if independent it would feign precision."""
    values = RNG.normal(0, 1, (3, 20))
    once, twice = crossed(values, one_each(20)), crossed(values, 2 * one_each(20))
    assert once is not None and twice is not None
    assert twice.half_width == pytest.approx(once.half_width, rel=1e-12)


def test_groups_of_unequal_size_weigh_by_their_answers() -> None:
    sizes = np.array([1.0, 5, 2, 2])
    values = RNG.normal(0, 1, (2, 4))
    estimate = crossed(values, sizes)
    flat = [np.repeat(row, sizes.astype(int)).mean() for row in values]
    assert estimate is not None and estimate.mean == pytest.approx(np.mean(flat))


@pytest.mark.parametrize(("seeds", "prompts", "times"), [(3, 50, 6000), (5, 500, 1500)])
@pytest.mark.parametrize("spread", [(0.05, 1, 1), (0.1, 0.1, 1), (0.01, 1, 0.5), (0.02, 0.2, 1)])
def test_new_seeds_and_new_prompts_are_covered(
    seeds: int, prompts: int, times: int, spread: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(1)
    of_seed, of_prompt, rest = map(math.sqrt, spread)
    hits = 0
    for _ in range(times):
        values = of_seed * rng.standard_normal((seeds, 1)) + of_prompt * rng.standard_normal((1, prompts))
        estimate = crossed(values + rest * rng.standard_normal((seeds, prompts)), one_each(prompts))
        assert estimate is not None
        hits += abs(estimate.mean) <= estimate.half_width
    assert 0.92 <= hits / times <= 0.97


@pytest.mark.parametrize(("seeds", "prompts", "times"), [(1, 50, 6000), (3, 50, 6000), (5, 500, 1500)])
def test_new_seeds_and_new_prompts_are_covered_by_a_rate_s_interval_too(seeds: int, prompts: int, times: int) -> None:
    rng = np.random.default_rng(2)
    logits = 1.5 + 1.0 * rng.standard_normal(2_000_000) + 0.2 * rng.standard_normal(2_000_000)
    truth = (1 / (1 + np.exp(-logits))).mean()
    hits = 0
    for _ in range(times):
        of_seed = 0.2 * rng.standard_normal((seeds, 1)) if seeds > 1 else 0.0
        chance = 1 / (1 + np.exp(-(1.5 + of_seed + rng.standard_normal((1, prompts)))))
        estimate = crossed((rng.random((seeds, prompts)) < chance).astype(float), one_each(prompts))
        assert estimate is not None
        low, high = wilson(estimate.mean, effective_size(estimate, prompts), estimate.degrees)
        hits += low <= truth <= high
    assert 0.92 <= hits / times <= 0.97


@pytest.mark.parametrize("spread", [0.05, 0.5])
@pytest.mark.parametrize("kind", ["mean of completions", "rate", "perplexity", "CAS", "median"])
def test_intervals_hold_the_truth_and_tests_their_level_at_five_seeds(kind: str, spread: float) -> None:
    """A small benchmarks/coverage.py: within three standard errors of .92 to .97, and of .06, in 400 draws."""
    draws = 400
    simulate = runpy.run_path(str(SCRIPT))["simulate"]
    coverage, level = simulate(kind, 5, spread, draws)
    error = 3 * math.sqrt(0.95 * 0.05 / draws)
    assert 0.92 - error <= coverage <= 0.97 + error and level <= 0.06 + error


def test_a_win_rate_over_several_draws_is_as_sure_as_its_variance() -> None:
    """Each completion's value is the mean of four comparisons: it is worth more than one comparison."""
    wins = RNG.binomial(4, 0.6, (3, 200)) / 4
    estimate = crossed(wins, one_each(200))
    assert estimate is not None and effective_size(estimate, 200) > 1.5 * wins.size
    low, high = wilson(estimate.mean, effective_size(estimate, 200), estimate.degrees)
    assert high - low == pytest.approx(2 * estimate.half_width, rel=0.05)


def test_wilsons_interval_is_scipys() -> None:
    for wins, n in ((24, 50), (0, 50), (50, 50), (1, 7)):
        interval = scipy.stats.binomtest(wins, n).proportion_ci(0.95, "wilson")
        assert wilson(wins / n, n) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_the_quantile_is_the_one_in_the_tables() -> None:
    for degrees, quantile in [(1, 12.7062047), (2, 4.3026527), (29, 2.0452296), (math.inf, 1.9599640)]:
        assert statistics.t_quantile(0.975, degrees) == pytest.approx(quantile, abs=5e-8)
    with pytest.raises(ValueError, match="no t quantile"):
        statistics.t_quantile(0.975, 0)


def test_holm_is_the_definition() -> None:
    values = [0.04, 0.01, 0.03, 0.2]
    assert holm(values) == pytest.approx([0.09, 0.04, 0.09, 0.2])
    assert holm([0.01], family=3) == pytest.approx([0.03])
    assert holm([]) == []
    # The set that is rejected at .05 is the one of stepping down by hand.
    for p_values in RNG.random((50, 5)) / 10:
        rejected: list[int] = []
        for rank, index in enumerate(np.argsort(p_values)):
            if p_values[index] > 0.05 / (5 - rank):
                break
            rejected.append(int(index))
        assert sorted(rejected) == [index for index, p in enumerate(holm(list(p_values))) if p <= 0.05]


def test_completions_are_averaged_by_group(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "group": "g", "prompt": "?", "values": {"x": 1.0, "hit": 1}},
        {"id": "a", "group": "g", "prompt": "?", "values": {"x": 2.0, "hit": 0}},
        {"id": "b", "group": "g", "prompt": "!", "values": {"x": 6.0}},
        {"id": "c", "group": "h", "prompt": "…", "values": {"x": 5.0}},
    ]
    write_jsonl(tmp_path / "completions.jsonl", rows)
    write_jsonl(tmp_path / FILE, averaged([row["group"] for row in rows], [row["values"] for row in rows]).by_group)
    write_json(tmp_path / "record.json", {"commit": None, "sections": {"dataset": {}}})
    frame = summarise(tmp_path / FILE, "one")
    assert frame["prompts"].tolist() == [3, 3]
    x, hit = (Completions(frame).of("one", name) for name in ("x", "hit"))
    assert x is not None and (x.means.tolist(), x.sizes.tolist()) == ([3.0, 5.0], [3, 1])
    assert hit is not None and (hit.means.tolist(), hit.sizes.tolist()) == ([0.5], [2])
    assert hit.groups.tolist() == x.groups.tolist()[:1]
    assert Completions(frame).of("another", "x") is None
