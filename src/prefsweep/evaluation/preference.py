"""How the policy ranks held-out pairs: accuracy, margin and DPO loss of its implicit reward; perplexity of both sides.

r(x, y) = log π(y|x) − log π_start(y|x), in nats: DPO's implicit reward over β, so that methods with and without a β
are compared on one scale. A tie is half right, so a policy that has not moved scores one half.
"""

from collections.abc import Sequence
from math import exp, log1p
from statistics import fmean
from typing import Any

import torch
from transformers import PreTrainedModel

from prefsweep.data.schema import PreferenceExample
from prefsweep.data.views import pair_rows
from prefsweep.evaluation.divergence import Forward
from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import completion_logprobs


def metrics(
    policy: PreTrainedModel,
    start: PreTrainedModel,
    pairs: Sequence[PreferenceExample],
    tokenizer: Any,
    max_length: int,
    forward: Forward,
    beta: float,
) -> dict[str, float]:
    rows, _ = pair_rows(pairs, tokenizer, max_length)
    margins = [0.0] * len(pairs)
    perplexities = {}
    for side, sign in (("chosen", 1), ("rejected", -1)):
        prompts, completions = list(rows["prompt_ids"]), list(rows[f"{side}_ids"])
        ours = logprobs(policy, prompts, completions, forward)
        theirs = ours if policy is start else logprobs(start, prompts, completions, forward)
        margins = [margin + sign * (our - their) for margin, our, their in zip(margins, ours, theirs, strict=True)]
        perplexities[f"preference/perplexity_{side}"] = exp(-sum(ours) / sum(map(len, completions)))
    right = fmean(float(margin > 0) + float(margin == 0) / 2 for margin in margins)
    loss = fmean(-log_sigmoid(beta * margin) for margin in margins)
    means = {"preference/accuracy": right, "preference/margin": fmean(margins), "preference/loss": loss}
    return means | perplexities


def log_sigmoid(x: float) -> float:
    return -log1p(exp(-x)) if x > 0 else x - log1p(exp(x))


def logprobs(model: PreTrainedModel, prompts: Any, completions: Any, forward: Forward) -> list[float]:
    """log π of each answer."""
    values = [0.0] * len(prompts)
    for places, batch in forward.batches(prompts, completions, model.device):
        forward.count(batch, model)
        with torch.inference_mode(), autocast(forward.precision, model.device):
            found = completion_logprobs(model, batch)
        for place, value in zip(places, found.tolist(), strict=True):
            values[place] = value
    return values
