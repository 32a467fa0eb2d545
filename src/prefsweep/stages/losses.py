"""The losses of DPO and KTO as their papers define them: the formulas to which the tests hold TRL's trainers.

Every `logps` is [B]: log π(y | x) summed over the tokens of a completion, EOS included.
"""

from torch import Tensor, where
from torch.nn.functional import logsigmoid


def preference_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return DPO's loss [B] of each pair (Rafailov et al. 2023, arXiv 2305.18290, eq. 7).

    −log σ(β log π(y_w | x) / π_ref(y_w | x) − β log π(y_l | x) / π_ref(y_l | x))

    With a `label_smoothing` of ε it is conservative DPO (Mitchell 2023): with ε the loss of the pair with its labels
    swapped.
    """
    chosen_reward = beta * (policy_chosen_logps - reference_chosen_logps)
    rejected_reward = beta * (policy_rejected_logps - reference_rejected_logps)
    margin = chosen_reward - rejected_reward
    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


def kto_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    desirable: Tensor,
    kl: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Return KTO's loss [B] of each completion (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8).

    With r = log π(y | x) / π_ref(y | x) it is λ_D (1 − σ(β (r − z_0))) where `desirable` [B] is true, else
    λ_U (1 − σ(β (z_0 − r))). The reference point z_0 is `kl` [], an estimate of KL(π ‖ π_ref), without a gradient.
    """
    advantage = beta * (policy_logps - reference_logps - kl.clamp(min=0).detach())
    return where(
        desirable,
        desirable_weight * (1 - advantage.sigmoid()),
        undesirable_weight * (1 - (-advantage).sigmoid()),
    )
