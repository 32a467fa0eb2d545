"""ppo: proximal policy optimisation (Schulman et al. 2017) against a reward, from a policy that is also its reference.

The reward of a token is −kl_coef (log π − log π_ref), and at the last token the score too. A critic predicts what is
left of it; the advantages are generalised advantage estimates (`tensors.gae`), whitened over the batch.

Departures:
- the score is added at the last token, not one after it; values need no column more than actions (`ppo/tensors.py`);
- the critic is not trained before the policy (`ppo/policy.py`);
- an update whose approx-KL passes `target_kl` is not made, and ends the epochs of its iteration (`ppo/update.py`).
"""

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from prefsweep.config.schema import ModelConfig
from prefsweep.config.stages import PPOConfig
from prefsweep.errors import UserError
from prefsweep.models.loading import load_fp32, load_policy
from prefsweep.ppo.policy import Critic
from prefsweep.ppo.tensors import gae, token_rewards, whiten
from prefsweep.ppo.update import Snapshot, Targets
from prefsweep.stages import on_policy


def run(config: PPOConfig, **inputs: Any) -> dict[str, Any]:
    """Train as `on_policy.run` does, by GAE's advantages and with a critic."""
    return on_policy.run(config, partial(advantage, config), partial(make_critic, config), **inputs)


def advantage(config: PPOConfig, before: Snapshot, scores: Tensor, kl_coef: float) -> Targets:
    """Return advantages and returns [N, A] for the shaped scores [N]; returns are of unwhitened advantages."""
    assert before.values is not None  # there is a critic
    rewards = token_rewards(scores, before.logprobs, before.reference, before.mask, kl_coef)
    if config.whiten_rewards:
        rewards = whiten(rewards, before.mask, keep_mean=True)
    advantages = gae(rewards, before.values, before.mask, config.gamma, config.gae_lambda)
    returns = advantages + before.values
    if config.whiten_advantages:
        advantages = whiten(advantages, before.mask)
    return Targets(advantages, returns)


def make_critic(
    config: PPOConfig, learner: PreTrainedModel, model: ModelConfig, policy: Path | None, reward_model: Path | None
) -> Critic:
    """Return a critic on the policy's trunk, on a copy of the starting policy's, or on the reward model's."""
    trunk = None
    if config.critic == "separate":
        trunk = load_policy(model, policy).base_model.to(learner.device)
    if config.critic == "reward":
        trunk = trunk_of(reward_model, learner).to(learner.device)
    rate = config.critic_learning_rate or config.learning_rate
    return Critic(trunk, rate, config.vf_coef, config.clip_range_value)


def trunk_of(reward_model: Path | None, policy: PreTrainedModel) -> PreTrainedModel:
    """Load the reward model without its head; it must read the policy's own tokens."""
    if reward_model is None:
        raise UserError("stages.ppo.critic=reward: this method trains no reward model; set it to shared or separate")
    trunk = load_fp32(AutoModel, str(reward_model), {}, "reward.path")
    names = ("model_type", "vocab_size")
    if any(getattr(trunk.config, name) != getattr(policy.config, name) for name in names):
        raise UserError(
            "stages.ppo.critic=reward: the reward model is of another architecture or vocabulary than the policy; "
            "set it to shared or separate"
        )
    return trunk
