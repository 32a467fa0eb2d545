"""PPO's arithmetic against second derivations: definitions written as loops, and gradients of closed forms."""

import math
import random

import pytest
import torch
from torch import Tensor

from prefsweep.ppo import tensors
from prefsweep.ppo.loss import kl_penalty, policy_loss, value_loss

LENGTHS = (1, 3, 5, 7)
WIDTH = max(LENGTHS)
MASK = torch.arange(WIDTH)[None, :] >= WIDTH - torch.tensor(LENGTHS)[:, None]


def numbers(seed: int) -> Tensor:
    """[4, 7] with garbage where there is no token: nothing may read it."""
    drawn = torch.randn(len(LENGTHS), WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.where(MASK, torch.tensor(float("nan"), dtype=torch.float64))


def unpadded(values: Tensor) -> list[list[float]]:
    return [row[-length:].tolist() for row, length in zip(values, LENGTHS, strict=True)]


def assert_masked_columns_are_zero(values: Tensor) -> None:
    assert (values[~MASK] == 0).all()


# ------------------------------------------------------------------------------------------- advantages, rewards


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.97, 0.0)])
def test_advantages_are_the_sums_of_their_definition(gamma: float, lam: float) -> None:
    """A_t = Σ_l (γλ)^l (r_{t+l} + γ V_{t+l+1} − V_{t+l}), each row alone, without recursion or padding."""
    rewards, values = numbers(1), numbers(2)
    advantages = tensors.gae(rewards, values, MASK, gamma, lam)
    assert_masked_columns_are_zero(advantages)
    for row, r, v in zip(unpadded(advantages), unpadded(rewards), unpadded(values), strict=True):
        after = [*v[1:], 0.0]
        for t in range(len(r)):
            terms = [(gamma * lam) ** (k - t) * (r[k] + gamma * after[k] - v[k]) for k in range(t, len(r))]
            assert row[t] == pytest.approx(sum(terms), abs=1e-12)


def test_with_lambda_one_an_advantage_is_the_discounted_return_less_the_value() -> None:
    rewards, values = numbers(1), numbers(2)
    advantages = tensors.gae(rewards, values, MASK, 0.9, 1.0)
    for row, r, v in zip(unpadded(advantages), unpadded(rewards), unpadded(values), strict=True):
        for t in range(len(r)):
            assert row[t] + v[t] == pytest.approx(sum(0.9 ** (k - t) * r[k] for k in range(t, len(r))), abs=1e-12)


def test_the_score_sits_on_the_last_token_and_the_price_of_kl_on_each() -> None:
    logprobs, reference, scores = numbers(3), numbers(4), torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    rewards = tensors.token_rewards(scores, logprobs, reference, MASK, kl_coef=0.3)
    assert_masked_columns_are_zero(rewards)
    rows = zip(unpadded(rewards), unpadded(logprobs), unpadded(reference), scores.tolist(), strict=True)
    for row, log_pi, log_ref, score in rows:
        expected = [-0.3 * (a - b) for a, b in zip(log_pi, log_ref, strict=True)]
        expected[-1] += score
        assert row == pytest.approx(expected, abs=1e-12)
    assert any(reward > 0 for row in unpadded(rewards) for reward in row[:-1])  # the sign of a difference is kept


def test_without_a_price_of_kl_the_score_is_all_there_is() -> None:
    rewards = tensors.token_rewards(torch.ones(4, dtype=torch.float64), numbers(3), numbers(4), MASK, kl_coef=0.0)
    assert torch.equal(rewards.nonzero(), torch.tensor([[row, WIDTH - 1] for row in range(4)]))


def test_the_kl_of_an_answer_is_the_sum_over_its_tokens() -> None:
    kls = tensors.kl_per_completion(numbers(3), numbers(4), MASK)
    for kl, log_pi, log_ref in zip(kls.tolist(), unpadded(numbers(3)), unpadded(numbers(4)), strict=True):
        assert kl == pytest.approx(sum(log_pi) - sum(log_ref), abs=1e-12)


# ---------------------------------------------------------------------------- whitening, moments, KL coefficient


@pytest.mark.parametrize("keep_mean", [False, True])
def test_whitening_sets_the_variance_and_the_mean_of_the_tokens_alone(keep_mean: bool) -> None:
    values = 5 + 3 * numbers(5)
    flat = [value for row in unpadded(values) for value in row]
    mean = sum(flat) / len(flat)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in flat) / len(flat))
    whitened = tensors.whiten(values.nan_to_num(1e6), MASK, keep_mean)
    assert_masked_columns_are_zero(whitened)
    expected = [(value - mean) / deviation + (mean if keep_mean else 0) for value in flat]
    assert [value for row in unpadded(whitened) for value in row] == pytest.approx(expected, abs=1e-6)


def test_moments_in_pieces_are_the_moments_of_the_whole() -> None:
    rng = random.Random(0)
    scores = torch.tensor([rng.gauss(3.0, 2.0) for _ in range(100)])
    moments = tensors.Moments()
    for piece in scores.split([1, 9, 50, 40]):
        moments.add(piece)
    assert moments.mean == pytest.approx(float(scores.double().mean()), abs=1e-9)
    assert moments.std == pytest.approx(float(scores.double().std(correction=0)), abs=1e-9)
    normalised = moments.normalised(scores)
    assert float(normalised.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normalised.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_equal_scores_are_not_scaled() -> None:
    moments = tensors.Moments()
    moments.add(torch.full((5,), 2.5))
    assert moments.normalised(torch.tensor([2.5, 3.5])).tolist() == [0.0, 1.0]


def test_the_kl_coefficient_moves_towards_the_target_and_by_a_fifth_a_horizon_at_most() -> None:
    assert tensors.next_kl_coef(0.2, kl=6.0, target=6.0, horizon=1000, episodes=100) == 0.2
    assert tensors.next_kl_coef(0.2, kl=6.6, target=6.0, horizon=1000, episodes=100) == pytest.approx(0.2 * 1.01)
    assert tensors.next_kl_coef(0.2, kl=600.0, target=6.0, horizon=1000, episodes=100) == pytest.approx(0.2 * 1.02)
    assert tensors.next_kl_coef(0.2, kl=-5.0, target=6.0, horizon=1000, episodes=100) == pytest.approx(0.2 * 0.98)


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_one_that_knows_the_mean() -> None:
    returns = numbers(6)
    assert tensors.explained_variance(returns, returns, MASK) == pytest.approx(1)
    assert tensors.explained_variance(torch.ones_like(returns), returns, MASK) == pytest.approx(0)
    assert tensors.explained_variance(returns, torch.ones_like(returns), MASK) == 0


# ---------------------------------------------------------------------------------------------------- the losses


def leaf(values: Tensor) -> Tensor:
    return values.clone().requires_grad_()


def test_the_policy_loss_and_its_gradient_are_those_of_the_formula_token_by_token() -> None:
    old, advantages = numbers(7), numbers(8).nan_to_num()
    new = leaf(old + 0.4 * numbers(9))
    losses = policy_loss(new, old, advantages, MASK, clip=0.2)
    losses["loss/policy"].backward()
    total, clipped = 0.0, 0
    for row, column in MASK.nonzero().tolist():
        ratio = math.exp(float(new[row, column].detach() - old[row, column]))
        advantage = float(advantages[row, column])
        gain = min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
        total -= gain
        stopped = (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
        clipped += stopped
        assert new.grad is not None
        expected = 0.0 if stopped else -ratio * advantage
        assert float(new.grad[row, column]) == pytest.approx(expected, abs=1e-12)
    assert float(losses["loss/policy"].detach()) == pytest.approx(total, abs=1e-10)
    assert int(losses["clip_fraction/policy"]) == clipped > 0


@pytest.mark.parametrize("clip", [0.2, None])
def test_the_value_loss_and_its_gradient_are_those_of_the_formula_token_by_token(clip: float | None) -> None:
    old, returns = numbers(7), numbers(8)
    new = leaf(old + 0.4 * numbers(9))
    losses = value_loss(new, old, returns, MASK, clip)
    losses["loss/value"].backward()
    total = 0.0
    for row, column in MASK.nonzero().tolist():
        v, before, goal = (float(each[row, column].detach()) for each in (new, old, returns))
        held = v if clip is None else min(max(v, before - clip), before + clip)
        total += 0.5 * max((v - goal) ** 2, (held - goal) ** 2)
        assert new.grad is not None
        expected = v - goal if (v - goal) ** 2 >= (held - goal) ** 2 else 0.0
        assert float(new.grad[row, column]) == pytest.approx(expected, abs=1e-12)
    assert float(losses["loss/value"].detach()) == pytest.approx(total, abs=1e-10)


def test_padding_gets_a_gradient_of_exactly_zero_whatever_stands_in_it() -> None:
    garbage = torch.full_like(MASK, 1, dtype=torch.float64) * float("inf")
    old, advantages = numbers(7).where(MASK, -garbage), numbers(8).where(MASK, garbage)
    new = leaf((numbers(7) + 0.1).where(MASK, garbage))
    values = leaf(numbers(9).where(MASK, garbage))
    policy = policy_loss(new, old, advantages, MASK, 0.2)["loss/policy"]
    value = value_loss(values, numbers(3), numbers(4), MASK, 0.2)["loss/value"]
    (policy + value).backward()
    for tensor in (new, values):
        assert tensor.grad is not None
        assert (tensor.grad[~MASK] == 0).all()
        assert (tensor.grad[MASK] != 0).any()
        assert torch.isfinite(tensor.grad).all()


def test_at_equal_policies_the_ratio_is_one_and_nothing_is_clipped() -> None:
    old = numbers(7)
    losses = policy_loss(leaf(old), old, numbers(8), MASK, clip=0.2)
    assert float(losses["ratio"].detach()) == int(MASK.sum())
    assert int(losses["clip_fraction/policy"]) == 0
    assert float(losses["approx_kl"]) == 0


def test_the_approximate_kl_is_never_negative_and_near_the_true_one() -> None:
    """Over draws from the old distribution, ratio − 1 − log ratio has the expectation KL(old ‖ new)."""
    old, new = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.4, 0.35, 0.25]).log()
    draws = torch.multinomial(old.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    whole = torch.ones(1, len(draws), dtype=torch.bool)
    losses = policy_loss(new[draws][None], old[draws][None], torch.zeros(1, len(draws)), whole, 0.2)
    assert float(losses["approx_kl"]) / len(draws) == pytest.approx(float((old.exp() * (old - new)).sum()), rel=0.05)


def test_the_kl_penalty_and_its_gradient_are_those_of_the_formula_token_by_token() -> None:
    reference = numbers(7)
    new = leaf(reference + 0.4 * numbers(9))
    penalty = kl_penalty(new, reference, MASK)
    penalty.backward()
    total = 0.0
    for row, column in MASK.nonzero().tolist():
        ratio = math.exp(float(reference[row, column] - new[row, column].detach()))  # π_ref/π
        total += ratio - math.log(ratio) - 1
        assert new.grad is not None
        assert float(new.grad[row, column]) == pytest.approx(1 - ratio, abs=1e-12)
    assert new.grad is not None
    assert (new.grad[~MASK] == 0).all()
    assert float(penalty.detach()) == pytest.approx(total, abs=1e-10)


def test_the_kl_penalty_is_the_kl_to_the_reference_in_expectation() -> None:
    policy, reference = torch.tensor([0.4, 0.35, 0.25]).log(), torch.tensor([0.5, 0.3, 0.2]).log()
    draws = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    everything = torch.ones(1, len(draws), dtype=torch.bool)
    estimate = float(kl_penalty(policy[draws][None], reference[draws][None], everything)) / len(draws)
    assert estimate == pytest.approx(float((policy.exp() * (policy - reference)).sum()), rel=0.05)
