"""GRPO: its advantage against the definition, and the policy at which its reward and its penalty balance."""

from collections.abc import Callable
from statistics import fmean, pstdev

import pytest
import torch

from ppo_toy import BANDIT, rewards_of_tokens, short, token_probabilities, with_shared_settings, without_critic
from prefsweep.config.stages import GRPOConfig, PPOConfig
from prefsweep.ppo.update import Snapshot
from prefsweep.stages import grpo

Config = Callable[..., GRPOConfig]


@pytest.fixture
def config(composed: Callable[..., object]) -> Config:
    stage: PPOConfig = composed().stages.ppo  # type: ignore[attr-defined]
    return lambda **changes: with_shared_settings(GRPOConfig, short(stage), **{"group_size": 4, **changes})


@pytest.mark.parametrize("group_size", [2, 3, 6])
def test_an_advantage_is_the_score_in_units_of_its_group(group_size: int, config: Config) -> None:
    """Each group alone, without vectors; equal at each token; KL is left to the loss."""
    lengths = [1, 4, 2, 5, 3, 3]
    mask = torch.arange(5)[None, :] >= 5 - torch.tensor(lengths)[:, None]
    logprobs, reference = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1)).where(mask, 0.0)
    scores = [1.0, -2.0, 0.5, 3.0, 0.0, 0.25]
    before = Snapshot(logprobs, reference, torch.zeros_like(logprobs), mask)
    targets = grpo.advantage(config(group_size=group_size), before, torch.tensor(scores), kl_coef=0.3)
    assert targets.returns is None and targets.kl_loss_coef == 0.3
    for row, length in enumerate(lengths):
        first = row // group_size * group_size
        group = scores[first : first + group_size]
        expected = (scores[row] - fmean(group)) / (pstdev(group) + 1e-4)
        assert targets.advantages[row, -length:].tolist() == pytest.approx([expected] * length, abs=1e-4)
        assert targets.advantages[row, :-length].tolist() == [0.0] * (5 - length)


def test_a_group_of_equal_scores_teaches_nothing() -> None:
    assert grpo.group_relative(torch.tensor([2.0, 2.0, 2.0, 1.0, 1.0, 1.0]), 3).tolist() == [0.0] * 6


def test_the_policy_settles_where_reward_and_penalty_balance(config: Config) -> None:
    """Of one token a: π(a) (A(a) − E A) = c (π(a) − π_ref(a)), with A = r/std(r), both moments under π."""
    rewards, coef = [0.1 * token for token in range(8)], 5.0
    task, reference = rewards_of_tokens(rewards)
    settings = config(**BANDIT, group_size=64, epochs=1, kl_coef=coef, iterations=120, learning_rate=1e-2)
    trainer = without_critic(settings, task, grpo.advantage, micro_batch=256)
    for _ in range(120):
        trainer.iterate()
    values, expected = torch.tensor(rewards), reference.clone()
    for _ in range(500):
        mean = (expected * values).sum()
        advantages = (values - mean) / (expected * (values - mean) ** 2).sum().sqrt()
        expected = 0.9 * expected + 0.1 * reference / (1 - advantages / coef)
        expected /= expected.sum()
    assert float((expected / reference - 1).abs().max()) > 0.3  # it had somewhere to go
    assert torch.allclose(token_probabilities(task, [2]), expected, rtol=0.08)
