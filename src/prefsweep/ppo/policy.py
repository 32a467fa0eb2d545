"""The policy with its critic: one forward gives log-probabilities, entropies and values at the answer's tokens.

The value head starts at zero, so the first values are 0, and takes its width from the hidden state itself: OPT-350m's
is 512 wide where its `hidden_size` says 1024.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefsweep.models.logprobs import AnswerBatch, positions


@dataclass(frozen=True)
class Beliefs:
    """What a forward says of an answer's tokens, each [B, A]; meaningless outside the batch's answer mask."""

    logprobs: Tensor
    entropy: Tensor  # of the whole distribution, in nats; no gradient
    values: Tensor


class ActorCritic(nn.Module):
    """`critic=None` puts the value head on the policy's own trunk; else on a trunk of its own."""

    def __init__(self, policy: PreTrainedModel, critic: PreTrainedModel | None, temperature: float):
        super().__init__()
        self.policy = policy
        self.critic = critic
        self.temperature = temperature
        self.value_head = nn.Linear(hidden_width(critic or policy), 1, device=policy.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, batch: AnswerBatch) -> Beliefs:
        hidden = answer_states(self.policy, batch)
        logprobs, entropy = token_logprobs(self.policy, hidden, batch, self.temperature)
        states = hidden if self.critic is None else answer_states(self.critic, batch)
        with torch.autocast(states.device.type, enabled=False):  # in bf16 a value would move in steps of a percent
            values = self.value_head(states.float()).squeeze(-1)
        return Beliefs(logprobs, entropy, values)

    def critic_parameters(self) -> list[nn.Parameter]:
        return [*self.value_head.parameters(), *(self.critic.parameters() if self.critic is not None else [])]


def answer_states(model: PreTrainedModel, batch: AnswerBatch) -> Tensor:
    """[B, A, H] the last hidden states from which each answer token was chosen."""
    output = model.base_model(
        input_ids=batch.ids, attention_mask=batch.attention, position_ids=positions(batch.attention), use_cache=False
    )
    width = batch.answer_mask.shape[1]
    states: Tensor = output.last_hidden_state[:, -(width + 1) : -1]
    return states


def token_logprobs(
    policy: PreTrainedModel, hidden: Tensor, batch: AnswerBatch, temperature: float
) -> tuple[Tensor, Tensor]:
    """([B, A], [B, A]) log π(y_t) at the sampling temperature, and the entropy; only answers see the vocabulary."""
    logits = policy.get_output_embeddings()(hidden).float() / temperature
    normaliser = logits.logsumexp(-1)
    chosen = logits.gather(-1, batch.answers[..., None]).squeeze(-1) - normaliser
    with torch.no_grad():
        entropy = normaliser - (logits.softmax(-1) * logits).sum(-1)
    return chosen, entropy


@torch.no_grad()
def reference_logprobs(reference: PreTrainedModel, batch: AnswerBatch, temperature: float) -> Tensor:
    """[B, A] by the same operations as the policy's, so that an unmoved policy differs by exactly 0."""
    return token_logprobs(reference, answer_states(reference, batch), batch, temperature)[0]


@torch.no_grad()
def hidden_width(model: PreTrainedModel) -> int:
    one = torch.ones(1, 1, dtype=torch.long, device=model.device)
    width: int = model.base_model(input_ids=one, attention_mask=one, use_cache=False).last_hidden_state.shape[-1]
    return width
