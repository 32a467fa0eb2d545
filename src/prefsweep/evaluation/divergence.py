"""KL(π ‖ π_ref) per answer, exact over the vocabulary at every step along answers sampled from π.

KL(π ‖ π_ref) = E_{y~π} Σ_t Σ_v π(v | x, y_<t) [log π(v | x, y_<t) − log π_ref(v | x, y_<t)]

The inner sum is exact, so only the answers are sampled: the same expectation as Σ_t log π(y_t) − log π_ref(y_t), with
less variance, and no step of it is negative. It holds only for answers drawn at temperature 1 with no other warping.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefsweep.evaluation.values import Values
from prefsweep.models.flops import forward_flops
from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import CompletionBatch, Ids, completion_batch, completion_logits


@dataclass
class Forward:
    """How forwards without gradients are run, and what they have cost."""

    pad: int
    batch: int
    precision: str
    flops: int = 0

    def batches(
        self, prompts: list[Ids], completions: list[Ids], where: Any
    ) -> Iterator[tuple[list[int], CompletionBatch]]:
        """Rows of like length together, each batch with its rows' places."""
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]) + len(completions[row]))
        for first in range(0, len(order), self.batch):
            picked = order[first : first + self.batch]
            rows = [prompts[row] for row in picked], [completions[row] for row in picked]
            yield picked, completion_batch(*rows, self.pad, where)

    def count(self, batch: CompletionBatch, *models: PreTrainedModel) -> None:
        """That each of these, one model under two names once, reads the batch."""
        tokens = int(batch.attention.sum())
        self.flops += sum(forward_flops(model, tokens) for model in {id(model): model for model in models}.values())


def values(
    policy: PreTrainedModel,
    base: PreTrainedModel,
    start: PreTrainedModel,
    rows: Sequence[dict[str, Any]],
    forward: Forward,
    with_kl: bool,
) -> Values:
    """`kl/base`, `kl/start`: nats an answer, where `with_kl`. `text/coherence`: −log π of the base, nats a token."""
    references = {"kl/base": base, "kl/start": start} if with_kl else {}
    found: Values = [{} for _ in rows]
    prompts, completions = [row["prompt_tokens"] for row in rows], [row["completion_tokens"] for row in rows]
    for places, batch in forward.batches(prompts, completions, policy.device):
        forward.count(batch, base, *([policy] if references else []), *references.values())
        with torch.inference_mode(), autocast(forward.precision, policy.device):
            by_base = completion_logits(base, batch)
            said = {"text/coherence": surprise(by_base, batch)}
            ours = by_base if policy is base else (completion_logits(policy, batch) if references else by_base)
            for name, reference in references.items():
                known = {id(base): by_base, id(policy): ours}
                theirs = known[id(reference)] if id(reference) in known else completion_logits(reference, batch)
                said[name] = kl(ours, theirs, batch.completion_mask)
        for name, column in said.items():
            for place, value in zip(places, column.tolist(), strict=True):
                found[place][name] = value
    return found


def of_start(
    start: PreTrainedModel, base: PreTrainedModel, rows: Sequence[dict[str, Any]], forward: Forward, with_kl: bool
) -> dict[str, float]:
    """How far the start is from the base along its own answers, where `with_kl`; of a policy to itself 0, unread."""
    if not with_kl:
        return {}
    said = values(start, base, base, rows, forward, with_kl) if start is not base else [{"kl/base": 0.0}]
    return {"kl/start_to_base": fmean(row["kl/base"] for row in said)}


def per_token(values: Values, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """KL over all answer tokens, beside that over answers."""
    tokens = sum(len(row["completion_tokens"]) for row in rows)
    names = [name for name in values[0] if name.startswith("kl/")]
    return {f"{name}_per_token": sum(said[name] for said in values) / tokens for name in names}


def surprise(logits: Tensor, batch: CompletionBatch) -> Tensor:
    """[B] mean −log π over an answer's tokens; logits [B, A, V]."""
    chosen = logits.gather(-1, batch.completions[..., None]).squeeze(-1) - logits.logsumexp(-1)
    return -(chosen * batch.completion_mask).sum(-1) / batch.completion_mask.sum(-1)


def kl(logits: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """[B] Σ over the masked steps of KL(softmax(logits) ‖ softmax(reference)); logits [B, A, V], mask [B, A]."""
    # Row by row: the log-softmaxes of a batch of long answers over 50,000 tokens would not fit beside the logits.
    return torch.stack([step_kl(*row).sum() for row in zip(logits, reference, mask, strict=True)])


def step_kl(logits: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """[A] of one answer; 0 where masked."""
    ours, theirs = logits.log_softmax(-1), reference.log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1) * mask
