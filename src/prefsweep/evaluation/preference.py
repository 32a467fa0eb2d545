"""How the policy ranks held-out pairs: the accuracy and margin of its implicit reward.

r(x, y) = log π(y|x) − log π_start(y|x), in nats: DPO's implicit reward over β, so that methods with and without a β
are compared on one scale. A tie is half right, so a policy that has not moved scores one half.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from transformers import PreTrainedModel

from prefsweep.data.schema import PreferenceExample
from prefsweep.data.views import pair_rows
from prefsweep.evaluation.divergence import Forward
from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import answer_logprobs


def metrics(
    policy: PreTrainedModel,
    start: PreTrainedModel,
    pairs: Sequence[PreferenceExample],
    tokenizer: Any,
    max_length: int,
    forward: Forward,
) -> dict[str, float]:
    rows, _ = pair_rows(pairs, tokenizer, max_length)
    chosen = rewards(policy, start, rows["prompt_ids"], rows["chosen_ids"], forward)
    rejected = rewards(policy, start, rows["prompt_ids"], rows["rejected_ids"], forward)
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    right = fmean(float(margin > 0) + float(margin == 0) / 2 for margin in margins)
    return {"preference/accuracy": right, "preference/margin": fmean(margins)}


def rewards(
    policy: PreTrainedModel, start: PreTrainedModel, prompts: Any, answers: Any, forward: Forward
) -> list[float]:
    """log π − log π_start of each answer."""
    values = [0.0] * len(prompts)
    if policy is start:
        return values
    for places, batch in forward.batches(list(prompts), list(answers), policy.device):
        with torch.inference_mode(), autocast(forward.precision, policy.device):
            found = answer_logprobs(policy, batch) - answer_logprobs(start, batch)
        for place, value in zip(places, found.tolist(), strict=True):
            values[place] = value
    return values
