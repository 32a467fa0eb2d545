"""How the policy ranks held-out pairs: accuracy, margin and DPO loss of its implicit reward; perplexity of both sides.

r(x, y) = log π(y | x) − log π_start(y | x), in nats: DPO's implicit reward over β, so that methods with and without a β
are compared on one scale. A tie counts half, so a policy that has not moved has an accuracy of one half.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel
from trl.trainer.dpo_trainer import DataCollatorForPreference

from prefsweep.data.schema import PreferenceExample
from prefsweep.data.views import IGNORED, pair_rows
from prefsweep.evaluation import ranking
from prefsweep.evaluation.by_group import Array, Measured, averaged, jackknifed
from prefsweep.evaluation.divergence import Forward
from prefsweep.models.batching import batches_by_length
from prefsweep.models.loading import autocast
from prefsweep.models.precision import weights_cast_once
from prefsweep.models.shared_prefix import pair_head

SIDES = ("chosen", "rejected")
COLUMNS = ["prompt_ids", "chosen_ids", "rejected_ids"]

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
    logps = logprobs(policy, rows, forward)
    start_logps = logps if policy is start else logprobs(start, rows, forward)
    rewards = dict(zip(SIDES, logps - start_logps, strict=True))
    groups, measured = [pair.group for pair in pairs], Measured()
    for side, side_logps in zip(SIDES, logps, strict=True):
        tokens = np.array(list(map(len, rows[f"{side}_ids"])))
        measured |= perplexity(f"preference/perplexity_{side}", groups, side_logps.numpy(), tokens)
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


def logprobs(model: PreTrainedModel, rows: Dataset, forward: Forward) -> Tensor:
    """Return log π [2, rows] of the chosen and the rejected completions, in double precision."""
    examples, collate = rows.to_list(), DataCollatorForPreference(pad_token_id=forward.pad)
    values = torch.empty((2, len(examples)), dtype=torch.float64)
    lengths = [sum(map(len, row.values())) for row in rows.select_columns(COLUMNS)]
    precision = autocast(forward.precision, model.device)
    with torch.inference_mode(), precision, weights_cast_once(model), pair_head(model):
        for indices in batches_by_length(lengths, forward.batch):
            batch = collate([examples[index] for index in indices])
            forward.count(int(batch["attention_mask"].sum()), model)
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, IGNORED)
            logps = model(**batch, labels=labels, fused_lm_head=True).log_probs.double().sum(-1)
            values[:, indices] = logps.view(2, -1).cpu()
    return values
