"""RLOO: its advantage against the definition, and the optimum that it must find."""

from collections.abc import Callable
from statistics import fmean

import pytest
import torch

from ppo_toy import (
    BANDIT,
    make_task,
    rewards_of_tokens,
    short,
    tilted,
    token_probabilities,
    with_shared_settings,
    without_critic,
)
from prefsweep.config.stages import PPOConfig, RLOOConfig
from prefsweep.ppo.update import Snapshot
from prefsweep.stages import rloo

Config = Callable[..., RLOOConfig]


@pytest.fixture
def config(composed: Callable[..., object]) -> Config:
    stage: PPOConfig = composed().stages.ppo  # type: ignore[attr-defined]
    return lambda **changes: with_shared_settings(RLOOConfig, short(stage), **{"group_size": 4, **changes})


@pytest.mark.parametrize("group_size", [2, 3, 6])
def test_an_advantage_is_the_reward_less_the_mean_of_the_others(group_size: int, config: Config) -> None:
    """R_i = s_i − kl_coef Σ_t (log π − log π_ref), each group alone, without vectors; equal at each token."""
    lengths = [1, 4, 2, 5, 3, 3]
    mask = torch.arange(5)[None, :] >= 5 - torch.tensor(lengths)[:, None]
    logprobs, reference = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1)).where(mask, 0.0)
    scores = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, 0.25])
    before = Snapshot(logprobs, reference, torch.zeros_like(logprobs), mask)
    targets = rloo.advantage(config(group_size=group_size), before, scores, kl_coef=0.3)
    assert targets.returns is None and targets.kl_loss_coef is None
    rewards = []
    for row, length in enumerate(lengths):
        terms = zip(logprobs[row, -length:].tolist(), reference[row, -length:].tolist(), strict=True)
        rewards.append(float(scores[row]) - 0.3 * sum(log_pi - log_ref for log_pi, log_ref in terms))
    for row, length in enumerate(lengths):
        group = range(row // group_size * group_size, row // group_size * group_size + group_size)
        expected = rewards[row] - fmean(rewards[other] for other in group if other != row)
        assert targets.advantages[row, -length:].tolist() == pytest.approx([expected] * length, abs=1e-5)
        assert targets.advantages[row, :-length].tolist() == [0.0] * (5 - length)


def test_the_policy_becomes_the_reference_tilted_by_the_reward(config: Config) -> None:
    rewards = [0.1 * token for token in range(8)]
    task, reference = rewards_of_tokens(rewards)
    settings = config(**BANDIT, epochs=1, kl_coef=0.4, iterations=120, learning_rate=1e-2)
    made = without_critic(settings, task, rloo.advantage, micro_batch=256)
    for _ in range(120):
        made.iterate()
    expected = tilted(reference, rewards, 0.4)
    assert float((expected / reference - 1).abs().max()) > 0.5  # it had somewhere to go
    assert torch.allclose(token_probabilities(task, [2]), expected, rtol=0.05)


def test_later_epochs_reuse_the_completions_within_the_clip(config: Config) -> None:
    metrics, _ = without_critic(config(epochs=2, target_kl=None), make_task(), rloo.advantage).iterate()
    assert metrics["ratio/first"] == 1
    assert metrics["updates"] == 2 * 3
    assert metrics["clip_fraction/policy"] > 0
