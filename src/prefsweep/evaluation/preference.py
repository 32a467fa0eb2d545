"""How the policy ranks held-out pairs: accuracy, margin and DPO loss of its implicit reward; perplexity of both sides.

r(x, y) = log π(y | x) − log π_start(y | x), in nats: DPO's implicit reward over β, so that methods with and without a β
are compared on one scale. A tie counts half, so a policy that has not moved has an accuracy of one half.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from prefsweep.data.schema import PreferenceExample
from prefsweep.data.views import pair_rows
from prefsweep.evaluation import ranking
from prefsweep.evaluation.divergence import Forward
from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import completion_logprobs


def metrics(
    policy: PreTrainedModel,
    start: PreTrainedModel,
    pairs: Sequence[PreferenceExample],
    tokenizer: Any,
    max_length: int,
    prompt_tokens: int | None,
    forward: Forward,
    beta: float,
) -> dict[str, float]:
    rows, _ = pair_rows(pairs, tokenizer, max_length, prompt_tokens=prompt_tokens)
    rewards, perplexities = {}, {}
    for side in ("chosen", "rejected"):
        prompts, completions = list(rows["prompt_ids"]), list(rows[f"{side}_ids"])
        logps = logprobs(policy, prompts, completions, forward)
        start_logps = logps if policy is start else logprobs(start, prompts, completions, forward)
        rewards[side] = logps - start_logps
        tokens = sum(map(len, completions))
        perplexities[f"preference/perplexity_{side}"] = float((-logps.sum() / tokens).exp())
    margin = rewards["chosen"] - rewards["rejected"]
    return {
        "preference/accuracy": float(ranking.right(margin).mean()),
        "preference/margin": float(margin.mean()),
        "preference/loss": float(-logsigmoid(beta * margin).mean()),
        **perplexities,
    }


def logprobs(model: PreTrainedModel, prompts: Any, completions: Any, forward: Forward) -> Tensor:
    """Return log π [rows] of each completion, in double precision."""
    values = torch.empty(len(prompts), dtype=torch.float64)
    for indices, batch in forward.batches(prompts, completions, model.device):
        forward.count(batch, model)
        with torch.inference_mode(), autocast(forward.precision, model.device):
            values[indices] = completion_logprobs(model, batch).double().cpu()
    return values
