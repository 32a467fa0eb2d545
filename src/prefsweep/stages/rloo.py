"""rloo: REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740) against a reward, without a critic.

Each prompt x is completed G = `group_size` times. A completion is one action with one reward,

    R(y_i) = score(y_i) − kl_coef · log(π(y_i|x)/π_ref(y_i|x)),
    A_i = R(y_i) − 1/(G − 1) Σ_{j≠i} R(y_j),

and its advantage is that of each of its tokens. The other completions do not depend on y_i, so their mean is a baseline
that adds no bias (Kool et al. 2019), and it costs no value model.

Departures:
- the loss is ppo's clipped ratio, token by token. Before the first step of an iteration the ratio is 1 and its gradient
  that of REINFORCE; more minibatches or `epochs` reuse the completions, and the clip bounds how far;
- a minibatch is divided by its tokens, not by its completions, which rescales the gradient of a minibatch as a whole;
- scores are normalised by the starting policy's (`score_normalisation`), so that `kl_coef` means what it does in ppo.
"""

from functools import partial
from typing import Any

from torch import Tensor

from prefsweep.config.stages import RLOOConfig
from prefsweep.ppo.update import Snapshot, Targets
from prefsweep.stages import on_policy


def run(config: RLOOConfig, **inputs: Any) -> dict[str, Any]:
    """Train as `on_policy.run` does, by leave-one-out advantages and without a critic."""
    return on_policy.run(config, partial(advantage, config), **inputs)


def advantage(config: RLOOConfig, before: Snapshot, scores: Tensor, kl_coef: float) -> Targets:
    """Return advantages [N, A] for the shaped scores [N]: one number a completion, at each of its tokens."""
    advantages = leave_one_out(scores - kl_coef * before.kl, config.group_size)
    return Targets(advantages[:, None].where(before.mask, 0.0))


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """Return R_i − 1/(G − 1) Σ_{j≠i} R_j [N] for rewards [N]; each G = `group_size` in succession are a group."""
    groups = rewards.view(-1, group_size)
    others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).flatten()
