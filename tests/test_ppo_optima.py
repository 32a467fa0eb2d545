"""PPO finds what is known to be best: where nothing pays, where one word pays, where reward and KL are in balance."""

from collections.abc import Callable

import torch

from ppo_toy import BANDIT, make_task, make_trainer, rewards_of_tokens, tilted, tiny, token_probabilities
from prefsweep.config.stages import PPOConfig

Config = Callable[..., PPOConfig]


def test_with_nothing_to_gain_the_policy_stays_where_it_is(ppo_config: Config) -> None:
    task = make_task(score=lambda prompts, completions: [0.0] * len(completions))
    before = {name: weight.clone() for name, weight in task.policy.state_dict().items()}
    made = make_trainer(ppo_config(), task)
    for _ in range(3):
        assert made.iterate()[0]["kl"] == 0
    assert all(torch.equal(weight, before[name]) for name, weight in task.policy.state_dict().items())


def test_the_price_of_kl_pulls_a_policy_back_to_its_reference(ppo_config: Config) -> None:
    nothing = {"score": lambda prompts, completions: [0.0] * len(completions)}
    task = make_task(**nothing)
    with torch.no_grad():
        for weight in task.policy.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    size = {"batch_size": 64, "minibatch_size": 32, "iterations": 30, "learning_rate": 3e-3}
    made = make_trainer(ppo_config(**size, score_normalisation="none", kl_coef=1.0), task, micro_batch=64)
    kls = [made.iterate()[0]["kl"] for _ in range(30)]
    assert kls[0] > 0.5
    assert kls[-1] < 0.15 * kls[0]


BANDIT_OF_PPO = {**BANDIT, "whiten_advantages": False, "clip_range_value": None, "vf_coef": 1.0}


def test_without_a_price_the_better_of_two_tokens_is_all_that_is_said(ppo_config: Config) -> None:
    config = ppo_config(**BANDIT_OF_PPO, kl_coef=0.0, iterations=40, learning_rate=3e-2)
    policy = tiny("gpt2", vocabulary=2, width=4)
    one = make_task(
        score=lambda prompts, completions: [float(completion) for completion in completions],
        queries=[[1]],
        policy=policy,
        reference=tiny("gpt2", vocabulary=2, width=4).eval(),
    )
    made = make_trainer(config, one, micro_batch=256)
    before = float(token_probabilities(one, [1])[1])
    for _ in range(40):
        made.iterate()
    assert before < 0.9
    assert float(token_probabilities(one, [1])[1]) > 0.99


def test_with_a_price_the_policy_becomes_the_reference_tilted_by_the_reward(ppo_config: Config) -> None:
    """π* = π_ref exp(r/β) / Z, for every token within 2%."""
    rewards = [0.1 * token for token in range(8)]
    task, reference = rewards_of_tokens(rewards)
    config = ppo_config(**BANDIT_OF_PPO, kl_coef=0.4, iterations=120, learning_rate=1e-2)
    made = make_trainer(config, task, micro_batch=256)
    for _ in range(120):
        made.iterate()
    expected = tilted(reference, rewards, 0.4)
    assert float((expected / reference - 1).abs().max()) > 0.5  # it had somewhere to go
    assert torch.allclose(token_probabilities(task, [2]), expected, rtol=0.02)
