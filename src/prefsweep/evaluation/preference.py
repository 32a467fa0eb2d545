"""How the policy ranks held-out pairs: accuracy, margin and DPO loss of its implicit reward; perplexity of both sides.

r(x, y) = log π(y | x) − log π_start(y | x), in nats: DPO's implicit reward over β, so that methods with and without a β
are compared on one scale. A tie counts half, so a policy that has not moved has an accuracy of one half.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from prefsweep.data.schema import PreferenceExample
from prefsweep.data.views import pair_rows
from prefsweep.evaluation import ranking
from prefsweep.evaluation.by_group import Array, Measured, averaged, jackknifed
from prefsweep.evaluation.divergence import Forward
from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import completion_logprobs

Tokens = NDArray[np.int64]


def metrics(
    policy: PreTrainedModel,
    start: PreTrainedModel,
    pairs: Sequence[PreferenceExample],
    tokenizer: Any,
    max_length: int,
    prompt_tokens: int | None,
    forward: Forward,
    beta: float,
) -> Measured:
    rows, _ = pair_rows(pairs, tokenizer, max_length, prompt_tokens=prompt_tokens)
    groups, measured, rewards = [pair.group for pair in pairs], Measured(), {}
    for side in ("chosen", "rejected"):
        prompts, completions = list(rows["prompt_ids"]), list(rows[f"{side}_ids"])
        logps = logprobs(policy, prompts, completions, forward)
        start_logps = logps if policy is start else logprobs(start, prompts, completions, forward)
        rewards[side] = logps - start_logps
        tokens = np.array(list(map(len, completions)))
        measured |= perplexity(f"preference/perplexity_{side}", groups, logps.numpy(), tokens)
    margin = rewards["chosen"] - rewards["rejected"]
    columns = {
        "preference/accuracy": ranking.right(margin).tolist(),
        "preference/margin": margin.tolist(),
        "preference/loss": (-logsigmoid(beta * margin)).tolist(),
    }
    values = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return averaged(groups, values) | measured


def perplexity(name: str, groups: Sequence[str], logps: Array, tokens: Tokens) -> Measured:
    """Measure exp of the mean −log π over all tokens of the completions [rows]."""
    return jackknifed(groups, lambda indices: {name: float(np.exp(-logps[indices].sum() / tokens[indices].sum()))})


def logprobs(model: PreTrainedModel, prompts: Any, completions: Any, forward: Forward) -> Tensor:
    """Return log π [rows] of each completion, in double precision."""
    values = torch.empty(len(prompts), dtype=torch.float64)
    for indices, batch in forward.batches(prompts, completions, model.device):
        forward.count(batch, model)
        with torch.inference_mode(), autocast(forward.precision, model.device):
            values[indices] = completion_logprobs(model, batch).double().cpu()
    return values
