"""KL(π ‖ π_ref) per completion, exact over the vocabulary at every step along completions sampled from π.

KL(π ‖ π_ref) = E_{y~π} Σ_t Σ_v π(v | x, y_<t) [log π(v | x, y_<t) − log π_ref(v | x, y_<t)]

The inner sum is exact, so only the completions are sampled: the same expectation as Σ_t log π(y_t) − log π_ref(y_t),
with less variance, and no step of it is negative. It holds only for completions drawn at temperature 1 without any
other warping.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefsweep.evaluation.by_group import Indices, Measured, averaged, jackknifed
from prefsweep.evaluation.values import Values
from prefsweep.models.batching import batches_by_length
from prefsweep.models.flops import forward_flops
from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import CompletionBatch, Ids, completion_batch, completion_logits


@dataclass
class Forward:
    """How forward passes without gradients are batched, and the FLOPs that they have cost."""

    pad: int
    batch: int
    precision: str
    flops: int = 0

    def batches(
        self, prompts: list[Ids], completions: list[Ids], where: Any
    ) -> Iterator[tuple[list[int], CompletionBatch]]:
        """Yield batches of rows of similar length, each with the indices of its rows."""
        lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
        for indices in batches_by_length(lengths, self.batch):
            rows = [prompts[index] for index in indices], [completions[index] for index in indices]
            yield indices, completion_batch(*rows, self.pad, where)

    def count(self, tokens: int, *models: PreTrainedModel) -> None:
        """Add the FLOPs of each model reading so many tokens; one model under two names reads them once."""
        self.flops += sum(forward_flops(model, tokens) for model in {id(model): model for model in models}.values())


def values(
    policy: PreTrainedModel,
    base: PreTrainedModel,
    start: PreTrainedModel,
    rows: Sequence[dict[str, Any]],
    forward: Forward,
    with_kl: bool,
) -> Values:
    """Return, of each row's completion, `text/coherence`: the mean −log π_base in nats a token.

    And with `with_kl` the KL of the policy to the base and to the start, in nats a completion: `kl/base`, `kl/start`.
    """
    references = {"kl/base": base, "kl/start": start} if with_kl else {}
    models = {id(model): model for model in (base, *([policy] if with_kl else []), *references.values())}
    values: Values = [{} for _ in rows]
    prompts, completions = [row["prompt_tokens"] for row in rows], [row["completion_tokens"] for row in rows]
    for indices, batch in forward.batches(prompts, completions, policy.device):
        forward.count(int(batch.attention.sum()), *models.values())
        with torch.inference_mode(), autocast(forward.precision, policy.device):
            logits = {name: completion_logits(model, batch) for name, model in models.items()}
            columns = {"text/coherence": surprise(logits[id(base)], batch)}
            for name, reference in references.items():
                columns[name] = kl(logits[id(policy)], logits[id(reference)], batch.completion_mask)
        for name, column in columns.items():
            for index, value in zip(indices, column.tolist(), strict=True):
                values[index][name] = value
    return values


def start_to_base(
    start: PreTrainedModel, base: PreTrainedModel, rows: Sequence[dict[str, Any]], forward: Forward
) -> Measured:
    """Measure the KL of the start to the base along the start's own completions; 0, unread, of one model to itself."""
    if start is base:
        return Measured({"kl/start_to_base": 0.0})
    of_start = values(start, base, base, rows, forward, True)
    return averaged([row["group"] for row in rows], [{"kl/start_to_base": row["kl/base"]} for row in of_start])


def per_token(values: Values, rows: Sequence[dict[str, Any]]) -> Measured:
    """Measure each KL over the tokens of all completions."""
    tokens = np.array([len(row["completion_tokens"]) for row in rows])
    columns = {name: np.array([row[name] for row in values]) for name in values[0] if name.startswith("kl/")}

    def metrics(indices: Indices) -> dict[str, float]:
        total = tokens[indices].sum()
        return {f"{name}_per_token": float(column[indices].sum() / total) for name, column in columns.items()}

    return jackknifed([row["group"] for row in rows], metrics)


def surprise(logits: Tensor, batch: CompletionBatch) -> Tensor:
    """Return [B] the mean −log π over a completion's tokens; logits [B, A, V]."""
    chosen = logits.gather(-1, batch.completions[..., None]).squeeze(-1) - logits.logsumexp(-1)
    return -(chosen * batch.completion_mask).sum(-1) / batch.completion_mask.sum(-1)


def kl(logits: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Return [B] Σ over the masked steps of KL(softmax(logits) ‖ softmax(reference)); logits [B, A, V], mask [B, A]."""
    # Row by row: the log-softmaxes of a batch of long completions over 50,000 tokens would not fit beside the logits.
    return torch.stack([step_kl(*row).sum() for row in zip(logits, reference, mask, strict=True)])


def step_kl(logits: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Return [A] the KL at each step of one completion, 0 where masked; logits [A, V], mask [A]."""
    log_p, log_q = logits.log_softmax(-1), reference.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1) * mask
