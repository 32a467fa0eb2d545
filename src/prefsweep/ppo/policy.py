"""The policy, with a critic or none: one forward gives log-probabilities, entropies and values at completion tokens.

The value head starts at zero, so the first values are 0, and takes its width from the hidden state itself: OPT-350m's
is 512 wide where its `hidden_size` is 1024.

Departure: the critic is not trained before the policy. On a shared trunk that would move the policy off its reference
before the first completion; whitened advantages make up for a critic that knows nothing yet.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefsweep.models.adapters import adapters_off
from prefsweep.models.heads import hidden_width
from prefsweep.models.logprobs import CompletionBatch, positions
from prefsweep.ppo.token_logprobs import entropies, token_logprobs


@dataclass(frozen=True)
class PolicyOutput:
    """What one forward gives for each completion token, every tensor [B, A]; meaningless outside the mask."""

    logprobs: Tensor
    values: Tensor | None  # None without a critic
    entropy: Tensor | None  # of the whole distribution, in nats; None in a forward that is differentiated


@dataclass(frozen=True)
class Critic:
    """How values are learned: by a head on `trunk`, or on the policy's own trunk where that is None."""

    trunk: PreTrainedModel | None
    learning_rate: float
    coef: float  # the weight of the value loss
    clip_range: float | None


class ActorCritic(nn.Module):
    """A policy, and a value head where there is a critic."""

    def __init__(self, policy: PreTrainedModel, critic: Critic | None, temperature: float):
        super().__init__()
        self.policy = policy
        self.critic = None if critic is None else critic.trunk
        self.temperature = temperature
        self.value_head = None if critic is None else zero_head(critic.trunk or policy)

    def forward(self, batch: CompletionBatch) -> PolicyOutput:
        hidden, logits = states_and_logits(self.policy, batch)
        logprobs = token_logprobs(logits, batch, self.temperature)
        entropy = None if torch.is_grad_enabled() else entropies(logits, batch, self.temperature)
        return PolicyOutput(logprobs, self.values(batch, hidden), entropy)

    def values(self, batch: CompletionBatch, hidden: Tensor) -> Tensor | None:
        """Return values [B, A], from the policy's hidden states [B, A, H] where the critic has no trunk of its own."""
        if self.value_head is None:
            return None
        states = hidden if self.critic is None else completion_states(self.critic, batch)
        with torch.autocast(states.device.type, enabled=False):  # in bf16 a value would move in steps of a percent
            values: Tensor = self.value_head(states.float()).squeeze(-1)
        return values


def zero_head(trunk: PreTrainedModel) -> nn.Linear:
    """Return a value head of the trunk's width whose every value is 0."""
    head = nn.Linear(hidden_width(trunk.base_model), 1, device=trunk.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def completion_states(model: PreTrainedModel, batch: CompletionBatch) -> Tensor:
    """Return the last hidden states [B, A, H] from which each completion token was chosen."""
    output = model.base_model(
        input_ids=batch.ids, attention_mask=batch.attention, position_ids=positions(batch.attention), use_cache=False
    )
    width = batch.completion_mask.shape[1]
    states: Tensor = output.last_hidden_state[:, -(width + 1) : -1]
    return states


def states_and_logits(policy: PreTrainedModel, batch: CompletionBatch) -> tuple[Tensor, Tensor]:
    """Return hidden states [B, A, H] and the logits [N, V] of the N tokens that the mask selects, by one forward.

    The logits are the model's own, since some models scale or cap what their vocabulary head gives; the states are what
    the head was passed. Only the N states pass it.
    """
    states: list[Tensor] = []
    width = batch.completion_mask.shape[1]

    def select(_: nn.Module, passed: tuple[Tensor, ...]) -> Tensor:
        states.append(passed[0][:, -(width + 1) : -1])
        return states[0][batch.completion_mask][None]

    hook = policy.get_output_embeddings().register_forward_pre_hook(select)
    try:
        output = policy(
            input_ids=batch.ids,
            attention_mask=batch.attention,
            position_ids=positions(batch.attention),
            logits_to_keep=width + 1,
            use_cache=False,
        )
    finally:
        hook.remove()
    return states[0], output.logits[0]


@torch.no_grad()
def reference_logprobs(reference: PreTrainedModel, batch: CompletionBatch, temperature: float) -> Tensor:
    """Return log π_ref(y_t) [B, A] by the operations of the policy, so that an unmoved policy differs by exactly 0.

    Adapters are off: a policy that trains some is its own reference.
    """
    with adapters_off(reference):
        _, logits = states_and_logits(reference, batch)
    return token_logprobs(logits, batch, temperature)
