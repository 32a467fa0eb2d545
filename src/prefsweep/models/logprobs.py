"""A policy's logits and log-probabilities at the tokens of given completions, and nowhere else."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

Ids = list[int]


@dataclass(frozen=True)
class CompletionBatch:
    """B rows that all end at the same column, so that the completions are in the last C columns.

    ids, attention: [B, L]; completion_mask: [B, C], 1 on the completion's tokens (EOS too), 0 before them.
    """

    ids: Tensor
    attention: Tensor
    completion_mask: Tensor

    @property
    def completions(self) -> Tensor:
        """The completions' tokens [B, C]; where the mask is 0, those of the prompt or padding."""
        return self.ids[:, -self.completion_mask.shape[1] :]


def pad_left(rows: list[Ids], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask [B, L], padded on the left. The mask is by length: `pad` may be any token."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
    attention = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, attention


def positions(attention: Tensor) -> Tensor:
    """Return the position of each real token in its row [B, L]: without them, left padding shifts GPT-2 in silence."""
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
    """Return the logits that predict each completion token, [B, C, V] in fp32. Only these pass the vocabulary head."""
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
    """Return log π(completion | prompt) [B], summed over the completion's tokens and its EOS."""
    logits = completion_logits(model, batch)
    chosen = logits.gather(-1, batch.completions[..., None]).squeeze(-1) - logits.logsumexp(-1)
    return (chosen * batch.completion_mask).sum(-1)
