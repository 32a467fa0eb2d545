"""How many tokens one forward and backward pass may hold: `runtime.micro_batch=auto`, and whether it is checkpointed.

What autograd saves of a token is counted in two forward passes of this model in this precision, not estimated from its
shape. Weights and their copies cancel out.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefsweep.config.schema import RuntimeConfig
from prefsweep.models.loading import autocast
from prefsweep.pipeline.files import write_json

PLAN = "memory.json"  # beside the checkpoints of a build
LOG = logging.getLogger(__name__)
SHARE = {"cpu": 0.5, "cuda": 0.8}  # of the free memory: the head's logits, other jobs, fragments have the rest
CPU_TOKENS = 4096  # a CPU gains nothing from more in one pass
OPTIMIZER = 12  # bytes of a trained weight beside itself: its gradient and Adam's two moments
LENGTHS = (64, 128)  # tokens of the two passes, or as many as there are positions for


@dataclass(frozen=True)
class MemoryPlan:
    """tokens: of one forward and backward pass, padding included; None where `runtime.micro_batch` says rows."""

    tokens: int | None
    gradient_checkpointing: bool


def plan(
    model: Any,
    precision: str,
    runtime: RuntimeConfig,
    longest: int,
    folder: Path,
    copies: int = 1,
    logits: bool = False,
) -> MemoryPlan:
    """Return how rows of up to `longest` tokens are computed in the memory that is free on the model's device.

    Checkpointing, where it is `auto`, is for a model of which not one such row fits otherwise. `copies` is the number
    of models of this size that are trained; `logits` says that those of each token are held, with their gradients.

    A build that goes on in the `folder` of its checkpoints takes what it began with, so that it ends bit-identical.
    """
    is_auto, checkpointing = runtime.micro_batch == "auto", runtime.gradient_checkpointing
    if not is_auto and checkpointing != "auto":
        return MemoryPlan(None, checkpointing)
    if (begun := folder / PLAN).is_file():
        return MemoryPlan(**json.loads(begun.read_text()))
    trunk = getattr(model, "backbone", None) or model.base_model
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    free = SHARE[trunk.device.type] * free_bytes(trunk.device) - copies * OPTIMIZER * trained
    saved, layers = saved_bytes(trunk, precision), trunk.config.num_hidden_layers
    of_head = 2 * trunk.config.vocab_size * (2 if precision == "bf16" else 4) if logits else 0
    if checkpointing == "auto":
        checkpointing = free < (copies * saved + of_head) * longest
    if checkpointing:  # a layer's input stays, and one layer at a time is computed again
        saved = 4 * trunk.config.hidden_size * layers + saved / layers
    tokens = max(longest, rounded(int(free / (copies * saved + of_head))))
    if trunk.device.type == "cpu":
        tokens = min(tokens, max(longest, CPU_TOKENS))
    LOG.info("%d tokens in one pass%s", tokens, ", with gradient checkpointing" if checkpointing else "")
    made = MemoryPlan(tokens if is_auto else None, checkpointing)
    write_json(begun, asdict(made))
    return made


def rounded(tokens: int) -> int:
    """Return the next power of two below, or three quarters of one, so that a little less memory splits as before."""
    power = 1 << max(0, max(tokens, 0).bit_length() - 1)
    return power * 3 // 2 if tokens >= power * 3 // 2 else power


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        (line,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):  # not Linux
        return 8 * 2**30


def saved_bytes(trunk: Any, precision: str) -> float:
    """Return the bytes that autograd saves of each token for the backward pass."""
    # of a model with few positions at most half of them
    scale = min(1.0, getattr(trunk.config, "max_position_embeddings", LENGTHS[1]) / LENGTHS[1] / 2)
    short, long = (int(length * scale) for length in LENGTHS)
    return (saved_for(trunk, precision, long) - saved_for(trunk, precision, short)) / (long - short)


def saved_for(trunk: Any, precision: str, length: int) -> int:
    storages = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # held until the end, so that no address comes twice
        return tensor

    ids = torch.zeros(1, length, dtype=torch.long, device=trunk.device)
    devices = [trunk.device] if trunk.device.type == "cuda" else []
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with torch.random.fork_rng(devices), torch.enable_grad(), autocast(precision, trunk.device), hooks:
        trunk(input_ids=ids, attention_mask=torch.ones_like(ids))
    return sum(storage.nbytes() for storage in storages.values())
