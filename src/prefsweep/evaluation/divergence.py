"""KL(π ‖ π_ref) per answer, exact over the vocabulary at every step along answers sampled from π.

KL(π ‖ π_ref) = E_{y~π} Σ_t Σ_v π(v | x, y_<t) [log π(v | x, y_<t) − log π_ref(v | x, y_<t)]

The inner sum is exact, so only the answers are sampled: the same expectation as Σ_t log π(y_t) − log π_ref(y_t), with
less variance, and no step of it is negative. It holds only for answers drawn at temperature 1 with no other warping.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import AnswerBatch, Ids, answer_batch, answer_logits


@dataclass(frozen=True)
class Forward:
    """How forwards without gradients are run."""

    pad: int
    batch: int
    precision: str

    def batches(self, prompts: list[Ids], answers: list[Ids], where: Any) -> Iterator[tuple[list[int], AnswerBatch]]:
        """Rows of like length together, each batch with its rows' places."""
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]) + len(answers[row]))
        for first in range(0, len(order), self.batch):
            picked = order[first : first + self.batch]
            rows = [prompts[row] for row in picked], [answers[row] for row in picked]
            yield picked, answer_batch(*rows, self.pad, where)


def metrics(
    policy: PreTrainedModel,
    base: PreTrainedModel,
    start: PreTrainedModel,
    rows: list[dict[str, Any]],
    forward: Forward,
) -> dict[str, float]:
    """`kl/base`, `kl/start`: nats an answer, mean over answers; `…_per_token` the same over all answer tokens."""
    references = {"kl/base": base, "kl/start": start}
    sums: dict[str, list[float]] = {name: [] for name in references}
    prompts, answers = [row["prompt_tokens"] for row in rows], [row["answer_tokens"] for row in rows]
    for _, batch in forward.batches(prompts, answers, policy.device):
        with torch.inference_mode(), autocast(forward.precision, policy.device):
            ours = answer_logits(policy, batch)
            for name, reference in references.items():
                theirs = ours if reference is policy else answer_logits(reference, batch)
                sums[name] += kl(ours, theirs, batch.answer_mask).tolist()
    tokens = sum(map(len, answers))
    means = {name: fmean(values) for name, values in sums.items()}
    return means | {f"{name}_per_token": sum(values) / tokens for name, values in sums.items()}


def kl(logits: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """[B] Σ over the masked steps of KL(softmax(logits) ‖ softmax(reference)); logits [B, A, V], mask [B, A]."""
    # Row by row: the log-softmaxes of a batch of long answers over 50,000 tokens would not fit beside the logits.
    return torch.stack([step_kl(*row).sum() for row in zip(logits, reference, mask, strict=True)])


def step_kl(logits: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """[A] of one answer; 0 where masked."""
    ours, theirs = logits.log_softmax(-1), reference.log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1) * mask
