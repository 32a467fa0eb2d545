"""Sampling completions, one stream of random numbers a row.

Each token is drawn by inverting the cumulative distribution at a uniform number that belongs to the row and the
position. So a completion does not depend on the batch it was drawn in, and two policies that draw with the same numbers
generate the same where they agree: their comparison is paired.
"""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from prefsweep.models.logprobs import Ids, pad_left, positions
from prefsweep.models.precision import weights_cast_once

ROWS = 8  # of logits in one piece of a draw: in double precision they fit into a CPU core's cache
READ_EVERY = {"cuda": 8}  # steps, and 1 elsewhere: a GPU that is asked for its tokens has to be waited for
BLOCK = 256  # tokens whose probabilities are summed before any is looked at alone


def uniforms(names: list[str], length: int, seed: int) -> Tensor:
    """Return numbers in [0, 1), [B, length]: row i depends on `seed` and `names[i]` alone."""

    def row(name: str) -> np.ndarray:
        entropy = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big")
        return np.random.Generator(np.random.Philox(entropy)).random(length)

    return torch.from_numpy(np.stack([row(name) for name in names]))


def draw(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Return the token [B] at which the cumulative distribution of softmax(logits / temperature) passes `uniform`.

    logits: [B, V]; uniform: [B].
    Temperature 0 is greedy: the likeliest token, whatever the number.
    """
    if temperature == 0:
        return logits.argmax(-1)
    # A few rows at a time where memory is a cache, all rows where a kernel's launch is what costs.
    rows = len(logits) if logits.is_cuda else ROWS
    size = logits.shape[-1]
    # In double precision: over 50,000 tokens, a sum in single would misplace the boundaries of the rare ones.
    weights = torch.zeros(min(rows, len(logits)), -(-size // BLOCK) * BLOCK, dtype=torch.double, device=logits.device)
    drawn = list[Tensor]()
    for piece, number in zip(logits.split(rows), uniform.split(rows), strict=True):
        filled = weights[: len(piece)]
        head = filled[:, :size].copy_(piece).div_(temperature)
        head.sub_(head.amax(-1, keepdim=True)).exp_()
        drawn.append(inverted(filled.unflatten(-1, (-1, BLOCK)), number))
    return torch.cat(drawn).clamp(max=size - 1)


def inverted(weights: Tensor, uniform: Tensor) -> Tensor:
    """Return the place [B] at which the cumulative sum of weights [B, N, BLOCK] passes `uniform` of its total.

    First the block is found by the sums of blocks, then the place inside: only one block is summed up place by place.
    """
    sums = weights.sum(-1).cumsum(-1)
    target = uniform[:, None] * sums[:, -1:]
    block = torch.searchsorted(sums, target, right=True)
    before = sums.gather(-1, (block - 1).clamp(min=0)).where(block > 0, 0)
    inside = weights.gather(1, block[..., None].expand(-1, 1, weights.shape[-1])).squeeze(1).cumsum(-1)
    # The two sums of a block differ in their last bits: never pass its end, where tokens of no probability may lie.
    target = torch.minimum(target - before, inside[:, -1:] * (1 - 2**-53))
    return (block * weights.shape[-1] + torch.searchsorted(inside, target, right=True)).squeeze(-1)


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: list[Ids],
    uniform: Tensor,
    eos: int,
    pad: int,
    temperature: float,
    at_stop: Callable[[Ids], bool] | None = None,
) -> list[Ids]:
    """Return a completion for each prompt, up to and with EOS, of at most uniform.shape[1] tokens.

    A completion of which `at_stop` is true has ended too.

    Temperature is the only warping: no top-k, no top-p.
    """
    with weights_cast_once(model):
        return decode(model, prompts, uniform, eos, pad, temperature, at_stop)


def decode(
    model: PreTrainedModel,
    prompts: list[Ids],
    uniform: Tensor,
    eos: int,
    pad: int,
    temperature: float,
    at_stop: Callable[[Ids], bool] | None,
) -> list[Ids]:
    """Do what `sample` does, with the weights as they are."""
    completions: list[Ids] = [[] for _ in prompts]
    has_ended = [False for _ in prompts]
    rows = list(range(len(prompts)))  # those of the batch, which shrinks
    read_every = READ_EVERY.get(model.device.type, 1)
    unread = list[Tensor]()
    ids, attention = pad_left(prompts, pad, model.device)
    uniform = uniform.to(model.device)
    cache, position_ids = DynamicCache(config=model.config), positions(attention)
    for step in range(uniform.shape[1]):
        # 1. one forward: the whole prompts first, then one token a row
        inputs = {"input_ids": ids, "attention_mask": attention, "position_ids": position_ids}
        output = model(**inputs, past_key_values=cache, logits_to_keep=1)
        # 2. draw; rows that have ended go on as filler until they are dropped
        token = draw(output.logits[:, -1], uniform[:, step], temperature)
        # 3. the next input
        ids = token[:, None]
        attention = torch.cat([attention, attention.new_ones(len(rows), 1)], dim=1)
        position_ids = position_ids[:, -1:] + 1
        # 4. read the tokens, each row's up to its end
        unread.append(token)
        if len(unread) < read_every and step + 1 < uniform.shape[1]:
            continue
        for row, tokens in zip(rows, torch.stack(unread, 1).tolist(), strict=True):
            for drawn in tokens:
                if not has_ended[row]:
                    completions[row].append(drawn)
                    has_ended[row] = drawn == eos or (at_stop is not None and at_stop(completions[row]))
        unread = []
        # 5. drop ended rows once they are half of the batch: most completions are shorter than the cap
        alive = [index for index, row in enumerate(rows) if not has_ended[row]]
        if not alive:
            break
        if len(alive) <= len(rows) // 2:
            rows, keep = [rows[index] for index in alive], torch.tensor(alive, device=model.device)
            cache.batch_select_indices(keep)
            ids, attention, position_ids, uniform = ids[keep], attention[keep], position_ids[keep], uniform[keep]
    return completions
