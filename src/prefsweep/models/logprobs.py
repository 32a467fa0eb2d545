"""What a policy thinks of given answers: logits and log-probabilities at the answer's tokens, nowhere else."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

Ids = list[int]


@dataclass(frozen=True)
class CompletionBatch:
    """B rows that all end at the same column, so that the answers are the last A columns.

    ids, attention: [B, L]; answer_mask: [B, A], 1 on the answer's tokens (EOS too), 0 before them.
    """

    ids: Tensor
    attention: Tensor
    completion_mask: Tensor

    @property
    def completions(self) -> Tensor:
        """[B, A] the answers' tokens, preceded by whatever stood there."""
        return self.ids[:, -self.completion_mask.shape[1] :]


def pad_left(rows: list[Ids], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """ids and attention mask [B, L], padded on the left. The mask is by length: `pad` may be any token."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
    attention = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, attention


def positions(attention: Tensor) -> Tensor:
    """The position of each real token in its own row: without them, left padding shifts GPT-2 in silence."""
    return (attention.cumsum(-1) - 1).clamp(min=0)


def completion_batch(prompts: list[Ids], completions: list[Ids], pad: int, device: torch.device) -> CompletionBatch:
    ids, attention = pad_left(
        [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)], pad, device
    )
    longest = max(map(len, completions))
    lengths = torch.tensor([len(completion) for completion in completions], device=device)
    mask = torch.arange(longest, device=device)[None, :] >= longest - lengths[:, None]
    return CompletionBatch(ids, attention, mask)


def completion_logits(model: PreTrainedModel, batch: CompletionBatch) -> Tensor:
    """[B, A, V] fp32: at each answer token, the logits that predicted it. Only these see the vocabulary head."""
    width = batch.completion_mask.shape[1]
    output = model(
        input_ids=batch.ids,
        attention_mask=batch.attention,
        position_ids=positions(batch.attention),
        logits_to_keep=width + 1,
        use_cache=False,
    )
    logits: Tensor = output.logits[:, -(width + 1) : -1].float()
    return logits


def completion_logprobs(model: PreTrainedModel, batch: CompletionBatch) -> Tensor:
    """[B] log π(answer | prompt), summed over the answer's tokens and its EOS."""
    logits = completion_logits(model, batch)
    chosen = logits.gather(-1, batch.completions[..., None]).squeeze(-1) - logits.logsumexp(-1)
    return (chosen * batch.completion_mask).sum(-1)
