"""The optimal reward at each KL: against closed forms, a general optimiser, and in the world whose truth is known."""

import json
import math
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from scipy.optimize import bisect, minimize

from prefsweep.data.datasets import synthetic
from prefsweep.evaluation import efficiency, frontier, judged
from prefsweep.evaluation.by_group import Measured
from prefsweep.jobs.job import plan_of
from prefsweep.pipeline.files import write_jsonl
from prefsweep.report.completions import read_completions
from prefsweep.report.figures import draw_runs, kl_axis, kl_of, read_frontiers
from prefsweep.report.runs import read_runs, records
from prefsweep.report.table import comparable_sets, table
from prefsweep.stages import frontier as stage
from recorded import write_run
from workplace import Workplace

# Three answers with probabilities of quarters, as four draws would show them exactly.
REFERENCE = np.array([0.5, 0.25, 0.25])
REWARD = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, 1.0]])
DRAWS = REWARD[:, [0, 0, 1, 2]]


def test_a_tilt_is_the_closed_form_with_a_normaliser_per_prompt() -> None:
    """π* = π_ref exp(r/β) / Z(x), its KL and its reward by definition over the distinct answers."""
    for beta in (0.3, 1.0, 5.0):
        kl, value, _ = frontier.tilt(DRAWS, DRAWS, 1 / beta)
        for index, rewards in enumerate(REWARD):
            policy = REFERENCE * np.exp(rewards / beta)
            policy /= policy.sum()
            assert kl[index] == pytest.approx((policy * np.log(policy / REFERENCE)).sum())
            assert value[index] == pytest.approx((policy * rewards).sum())


@pytest.mark.parametrize("kl", [0.05, 0.3, 0.6])
def test_no_policy_has_more_reward_at_that_kl(kl: float) -> None:
    """A general optimiser over both prompts' policies, its mean KL bounded, finds the curve and nothing above it."""

    def policies(x: np.ndarray) -> np.ndarray:
        raised = np.exp(x.reshape(2, 3) - x.reshape(2, 3).max(1, keepdims=True))
        probabilities: np.ndarray = raised / raised.sum(1, keepdims=True)
        return probabilities

    def mean_kl(x: np.ndarray) -> float:
        policy = policies(x)
        return float((policy * np.log(policy / REFERENCE)).sum(1).mean())

    bound = {"type": "ineq", "fun": lambda x: kl - mean_kl(x)}
    starts = (np.random.default_rng(seed).normal(size=6) * 0.3 for seed in range(5))
    optima = [minimize(lambda x: -(policies(x) * REWARD).sum(1).mean(), x, constraints=[bound]) for x in starts]
    most = max(-each.fun for each in optima if each.success)
    kls, values = frontier.tilted(DRAWS, DRAWS).mean()
    assert np.interp(kl, kls, values) == pytest.approx(most, rel=2e-3)


def test_kl_never_passes_log_n_and_rises_with_the_tilt() -> None:
    rewards = np.random.default_rng(0).normal(size=(5, 16))
    kl, value = frontier.tilted(rewards, rewards).mean()
    assert (np.diff(kl) >= -1e-12).all() and (np.diff(value) >= -1e-9).all()
    assert kl[0] == 0 and value[0] == pytest.approx(rewards.mean())
    assert kl[-1] == pytest.approx(math.log(16), abs=0.01) and kl.max() <= math.log(16) + 1e-12
    flat = frontier.tilted(np.ones((2, 4)), rewards[:2, :4])
    assert flat.kl.tolist() == [[0.0], [0.0]]  # nothing to prefer


def test_what_is_shown_is_a_lower_bound_at_every_n() -> None:
    """At KL k the truth of Gaussian rewards is √(2k); in the mean over draws less is shown."""
    rng = np.random.default_rng(0)
    for kl in (0.5, 1.5, 2.5):
        shown = [
            np.interp(kl, curve.mean()[0], curve.mean()[1] - curve.mean()[1][0])
            for curve in (frontier.tilted(rewards, rewards) for rewards in rng.normal(size=(20, 32, 64)))
        ]
        assert np.mean(shown) < math.sqrt(2 * kl)


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_curve_is_trusted_while_every_prompts_weights_rest_on_several_completions(spread: float) -> None:
    """Prompts whose rewards differ in spread have KLs far from the mean; by the mean alone 80% would be shown there."""
    rng = np.random.default_rng(0)
    spreads = np.exp(spread * rng.standard_normal((64, 1)))
    rewards = spreads * rng.normal(size=(64, 256))
    end, curve = frontier.trusted_kl(rewards, 0.9), frontier.tilted(rewards, rewards)
    kl, value = curve.mean()
    truth = math.sqrt(2 * end * float((spreads**2).mean()))
    assert 0.92 < np.interp(end, kl, value - value[0]) / truth < 1.02
    index = int(np.searchsorted(kl, end))
    gain = curve.value[:, index] - curve.value[:, 0]
    assert gain[curve.effective[:, index] < 5].sum() <= 0.1 * gain.sum()
    assert frontier.trusted_kl(rewards, 0.99) < end and frontier.trusted_kl(np.ones((2, 8)), 0.9) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_best_of_n_is_the_mean_over_all_subsets(n: int) -> None:
    """Equal rewards are broken by chance, so that a tie's value is its level's mean."""
    rewards = np.random.default_rng(1).integers(0, 4, (3, 7)).astype(float)
    values = np.random.default_rng(2).normal(size=(3, 7))
    by_hand = [
        worth[row == row[list(chosen)].max()].mean()
        for row, worth in zip(rewards, values, strict=True)
        for chosen in combinations(range(7), n)
    ]
    assert frontier.best_of(rewards, values, n) == pytest.approx(np.mean(by_hand))


def test_best_of_ns_kl_by_definition() -> None:
    """N distinct answers, equally likely: the i-th is best of n with probability (i/N)^n − ((i−1)/N)^n."""
    count = 4000
    edges = np.arange(count + 1) / count
    for n in (1, 2, 8, 32):
        chances = np.diff(edges**n)
        there = chances > 0
        kl = (chances[there] * np.log(chances[there] * count)).sum()
        assert frontier.best_of_kl(n) == pytest.approx(kl, abs=1e-4)
        tied = np.diff(edges[:: count // 4] ** n)  # with four levels of reward, less is learned
        assert (tied * np.log(tied * 4)).sum() <= frontier.best_of_kl(n) + 1e-12


# ------------------------------------------------------------------------------------------------------ the known world


def world(prompts: list[str], count: int, seed: int) -> np.ndarray:
    rng = Random(seed)
    return np.array(
        [[synthetic.true_reward(synthetic._continue(rng, prompt, 0.74)) for _ in range(count)] for prompt in prompts]
    )


@pytest.fixture(scope="module")
def truth() -> tuple[list[str], np.ndarray]:
    """The world's own answers, so many that they are its distribution."""
    prompts = [row.prompt for row in synthetic.preferences(6, seed=3, coherence=0.74, noise=0)]
    return prompts, world(prompts, 12_000, 0)


def test_in_the_world_the_curve_is_the_truth_from_below(truth: tuple[list[str], np.ndarray]) -> None:
    prompts, scores = truth
    kl, value = frontier.tilted(scores, scores).mean()
    shares = {}
    for count in (16, 256):
        pool = world(prompts, count * 12, count)
        curves = [frontier.tilted(part, part).mean() for part in np.split(pool, 12, axis=1)]
        gains = [np.interp(1.5, kls, values - values[0]) for kls, values in curves]
        shares[count] = np.mean(gains) / np.interp(1.5, kl, value - value[0])
    assert 0.88 < shares[16] < shares[256] < 1.01
    assert shares[256] > 0.985


def test_in_the_world_the_truth_is_the_tilt_of_the_distribution_of_rewards(truth: tuple[list[str], np.ndarray]) -> None:
    """Derived again from each prompt's distribution over distinct rewards: Σ p ∝ q·exp(r/β), no answer weighed; and one
    β for all prompts, found by bisection where their mean KL is what was asked."""
    _, scores = truth
    known = [np.unique(row, return_counts=True) for row in scores]
    kl, value = frontier.tilted(scores, scores).mean()

    def tilted(log_beta: float) -> np.ndarray:
        """Mean KL and mean reward."""
        points = []
        for rewards, counts in known:
            reference = counts / counts.sum()
            policy = reference * np.exp((rewards - rewards.max()) / math.exp(log_beta))
            policy /= policy.sum()
            points.append(((policy * np.log(policy / reference)).sum(), (policy * rewards).sum()))
        mean: np.ndarray = np.mean(points, axis=0)
        return mean

    for target_kl in (0.25, 0.5, 1.0, 1.5, 2.0):
        root = bisect(lambda x, target_kl=target_kl: tilted(x)[0] - target_kl, math.log(0.02), math.log(50))
        assert np.interp(target_kl, kl, value) == pytest.approx(tilted(root)[1], abs=2e-3)


def test_in_the_world_win_rate_and_kl_of_the_best_of_four(truth: tuple[list[str], np.ndarray]) -> None:
    """Best of four against one: the truth by the distribution of rewards, a tie half a win."""
    prompts, scores = truth
    known = []
    for row in scores:
        _, counts = np.unique(row, return_counts=True)
        below = np.concatenate([[0], np.cumsum(counts)]) / len(row)
        best = np.diff(below**4)
        known.append(float((best * (below[:-1] + below[1:]) / 2).sum()))
    rng = np.random.default_rng(0)
    draws = rng.integers(0, scores.shape[1], (400, len(prompts), 5))
    rows, base = [], []
    for time, picked in enumerate(draws):
        for index, five in enumerate(picked):
            values = scores[index, five]
            for target, score in ((rows, values[:4].max()), (base, values[4])):
                target.append({"id": str(index), "sample": time, "scores": {"score": float(score)}})
    judged_values = judged.values(rows, judged.opponents(rows, base, []), {}, {})
    rate = np.mean([value["judge/win_rate"] for value in judged_values])
    assert rate == pytest.approx(np.mean(known), abs=3 * 0.5 / math.sqrt(len(rows)))
    assert frontier.best_of(scores[:, :2000], scores[:, :2000], 4) == pytest.approx(
        np.mean([row["scores"]["score"] for row in rows]), abs=0.04
    )


# ------------------------------------------------------------------------------------------------------ the efficiency


def save_curves(folder: Path, scores: np.ndarray) -> Path:
    curve = frontier.tilted(scores, scores)
    ids = [str(index) for index in range(len(scores))]
    np.savez(folder / "by_prompt.npz", ids=ids, groups=ids, kl=curve.kl, value=curve.value, trusted=3.0)
    return folder / "by_prompt.npz"


def policy(kl: float, share: float, scores: np.ndarray) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
    """Rows of one that gains that share of what is to be had at that mean KL."""
    curve = frontier.tilted(scores, scores)
    index = int(np.searchsorted(curve.mean()[0], kl))
    rows = [{"id": str(number)} for number in range(len(scores))]
    values = [
        {
            "judge/mean": curve.value[number, 0] + share * (curve.value[number, index] - curve.value[number, 0]),
            "kl/base": curve.kl[number, index],
        }
        for number in range(len(scores))
    ]
    return rows, values


def test_efficiency_is_the_share_of_what_was_to_be_had(tmp_path: Path) -> None:
    scores = np.random.default_rng(3).normal(size=(40, 256))
    path = save_curves(tmp_path, scores)
    for share in (0.4, 1.0):
        metrics = efficiency.metrics(path, *policy(1.5, share, scores), "kl/base", 0.1).metrics
        assert metrics["frontier/efficiency"] == pytest.approx(share, abs=1e-3)
        assert metrics["frontier/gain"] == pytest.approx(share * metrics["frontier/optimal_gain"], rel=1e-3)
    rows, values = policy(1.5, 0.5, scores)
    shared = efficiency.metrics(
        path, [*rows, {"id": "another"}], [*values, {"judge/mean": 99.0, "kl/base": 9.0}], "kl/base", 0.1
    ).metrics
    assert shared["frontier/efficiency"] == pytest.approx(0.5, abs=1e-3)  # prompts without a limit have no say


def test_it_is_not_reported_where_it_would_mean_nothing(tmp_path: Path) -> None:
    scores = np.random.default_rng(3).normal(size=(40, 256))
    path = save_curves(tmp_path, scores)
    too_near, past_the_end = policy(0.05, 1, scores), policy(4.0, 1, scores)
    elsewhere = [{"id": "another"}], [{"judge/mean": 0.0, "kl/base": 1.0}]
    for rows, values in (too_near, past_the_end, elsewhere):
        assert efficiency.metrics(path, rows, values, "kl/base", 0.1) == Measured()


def test_the_band_covers_new_prompts() -> None:
    """By groups: two prompts of one group are drawn together, and the weights sum to one."""
    weights = frontier.resampled(["a", "b", "a", "c"], 200)
    assert weights.shape == (201, 4)
    assert np.allclose(weights[0], 0.25) and np.allclose(weights.sum(1), 1)
    assert (weights[:, 0] == weights[:, 2]).all() and len({tuple(row) for row in weights}) > 5


# ----------------------------------------------------------------------------------------------------------- the stage


def test_the_stage_draws_both_curves_and_best_of_n(tmp_path: Path, composed: Any, new_context: Any) -> None:
    """The judge's own tilt is above the reward's at every KL; with a reward equal to the judge they are one."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(12, 64))
    learned = truth + rng.normal(size=truth.shape)
    for name, scores in (("judged", truth), ("rewarded", learned)):
        (tmp_path / name).mkdir()
        rows = [
            {"id": f"p{at}", "group": f"g{at // 2}", "sample": number, "scores": {"score": float(score)}}
            for number in range(64)  # not in the order of the prompts
            for at, score in enumerate(scores[:, number])
        ]
        write_jsonl(tmp_path / name / "completions.jsonl", rows)
    config = composed("stages.evaluate.frontier=true").stages.frontier
    (tmp_path / "made").mkdir()
    metrics = stage.run(
        config,
        folder=tmp_path / "made",
        context=new_context(),
        judged=tmp_path / "judged",
        rewarded=tmp_path / "rewarded",
    )
    curves = json.loads((tmp_path / "made/curves.json").read_text())
    assert (curves["completions"], curves["prompts"]) == (metrics["completions"], metrics["prompts"]) == (64, 12)
    by_judge, by_reward = (curves["curves"][name]["optimal"] for name in ("judge", "reward"))
    assert by_judge[-1]["kl"] <= curves["curves"]["judge"]["trusted_kl"] < math.log(64)
    for one, other in zip(by_judge[1:], by_reward[1:], strict=True):
        assert one["kl"] == pytest.approx(other["kl"], abs=0.3) and one["value"] > other["value"]
        assert one["low"] <= one["value"] <= one["high"]
    best = curves["curves"]["judge"]["best_of"]
    assert [point["n"] for point in best] == [1, 2, 4, 8, 16, 32]
    assert best[0]["value"] == pytest.approx(truth.mean())


@pytest.mark.slow
def test_one_frontier_serves_every_method_of_the_reference(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    done = workplace.run("stages.evaluate.frontier=true", "-m", "method=base,dpo,ppo", "sweep=limits", "tracking=off")
    assert done.returncode == 0
    assert len(workplace.stages("frontier_samples")) == 1 and len(workplace.stages("frontier_rewards")) == 1
    assert len(workplace.stages("frontier")) == 2  # ppo's has the curve of its reward too
    drawn = read_frontiers(records(read_runs([tmp_path / "multirun_sweeps/limits"])))
    assert sorted(curve["name"] for curve in drawn) == ["judge", "reward"]


@pytest.mark.parametrize(("of", "tilted"), [("${method.start}", "sft"), ("base", "pretrain")])
def test_whose_answers_are_tilted_is_a_setting(of: str, tilted: str, composed: Any) -> None:
    plan = plan_of(composed("method=sft+dpo", "stages.evaluate.frontier=true", f"method.frontier_of={of}"))
    identities = {stage.role: stage.identity for stage in plan.stages}
    (sampling,) = (stage for stage in plan.stages if stage.role == "frontier_samples")
    assert sampling.inputs["policy"].identity == identities[tilted]


def test_against_kl_to_the_start_stand_those_that_share_one_and_the_start_itself(tmp_path: Path) -> None:
    """The SFT model of seed 1 is where they began: it is at 0. That of seed 2 is no place on this axis."""
    settings = {"frontier": True, "frontier_of": "sft"}

    def ran(method: str, seed: int, start: str, result: str, kl: float, **evaluate: Any) -> None:
        write_run(
            tmp_path,
            method,
            seed,
            {"judge/mean": kl, "kl/start": kl, "kl/base": 9.0},
            stages={"judge_completions/start": start, "judge_completions/result": result},
            **{"stages.evaluate": settings | evaluate},
        )

    for seed in (1, 2):
        ran("sft", seed, "of the base", f"of sft {seed}", 0.7, frontier_of="base")
    ran("sft+dpo", 1, "of sft 1", "of sft+dpo", 2.0)
    ran("sft+ppo", 1, "of sft 1", "of sft+ppo", 3.0)
    frame = read_runs([tmp_path])
    runs = records(frame)
    divergence, start = kl_axis(runs)
    assert (divergence, start) == ("kl/start", "of sft 1")
    kl_by_run = {(run["method"], run["seed"]): kl_of(run, divergence, start) for run in runs}
    assert kl_by_run == {("sft", 1): 0.0, ("sft", 2): None, ("sft+dpo", 1): 2.0, ("sft+ppo", 1): 3.0}
    # whose completions are tilted, and whether any are, keeps no run out of the table
    assert len(comparable_sets(frame, read_completions(frame))) == 1
    assert kl_axis([run | {"stages.evaluate.frontier_of": "base"} for run in runs]) == ("kl/base", None)


def test_kl_to_two_models_is_no_one_axis(tmp_path: Path) -> None:
    panels = []
    for method, base in (("dpo", "of one"), ("sft", "of one"), ("ppo", "of another")):
        write_run(tmp_path, method, 1, {"judge/mean": 0.0, "kl/base": 1.0}, stages={"judge_completions/base": base})
        panels.append(len(draw_runs(table(read_runs([tmp_path]), ["judge/mean"])).axes))
    assert panels == [2, 2, 1]


def test_answers_at_another_temperature_have_no_limit(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    for words in (["stages.generate.temperature=0"], ["stages.frontier_samples.temperature=0.7"]):
        done = workplace.command("stages.evaluate.frontier=true", *words)
        assert done.returncode == 2 and "temperature" in done.stderr and done.stderr.count("\n") == 1, done.stderr
