"""grpo: group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300) against a reward, without a critic.

Each prompt x is completed G = `group_size` times. A completion's advantage is its score in units of its group,

    A_i = (score(y_i) − mean_j score(y_j)) / (std_j score(y_j) + ε),

the same at each of its tokens. KL to the reference is not part of the reward but a penalty of the loss, at each token:
kl_coef · (r − log r − 1) with r = π_ref(y_t)/π(y_t), the paper's equation 4. Its value estimates KL(π ‖ π_ref); its
gradient, since the completions are fixed, is that of KL(π_ref ‖ π).

Departures:
- a minibatch is divided by its tokens, not each completion by its own length: the paper's 1/|y_i| makes a token of a
  long completion weigh less, so that long bad completions are hardly discouraged (Liu et al. 2025, arXiv 2503.20783);
- scores are normalised by the starting policy's (`score_normalisation`) before they are by their group, which changes
  nothing but what a missing end of text costs;
- where all scores of a group are equal its advantages are 0: there is nothing to learn from it but the penalty.
"""

from functools import partial
from typing import Any

from torch import Tensor

from prefsweep.config.stages import GRPOConfig
from prefsweep.ppo.update import Snapshot, Targets
from prefsweep.stages import on_policy

EPSILON = 1e-4  # beside the standard deviation, against groups that are all but equal


def run(config: GRPOConfig, **inputs: Any) -> dict[str, Any]:
    """Train as `on_policy.run` does, by group-relative advantages, without a critic, with KL in the loss."""
    return on_policy.run(config, partial(advantage, config), **inputs)


def advantage(config: GRPOConfig, before: Snapshot, scores: Tensor, kl_coef: float) -> Targets:
    """Return advantages [N, A] for the shaped scores [N]: one number a completion, at each of its tokens."""
    advantages = group_relative(scores, config.group_size)
    return Targets(advantages[:, None].where(before.mask, 0.0), kl_loss_coef=kl_coef)


def group_relative(scores: Tensor, group_size: int) -> Tensor:
    """Return (s_i − mean) / (std + ε) [N] for scores [N]; each G = `group_size` in succession are a group."""
    groups = scores.view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True, correction=0) + EPSILON)).flatten()
