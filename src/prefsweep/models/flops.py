"""Estimated floating-point operations of a forward or a training step: 2 per parameter and token forward, 4 more for
the gradients (Kaplan et al. 2020).

Every sequence counts in full, whatever saves or repeats work: a pair's prompt twice, though its completions may share
it, and no second forward of gradient checkpointing. Left out are attention's own products, small at our lengths.
"""

from torch import nn
from torch.nn import Parameter


def multiplied(model: nn.Module) -> list[Parameter]:
    """Return the parameters that a token is multiplied by: all but embeddings, unless they are also the head, as
    GPT-2's and OPT's are."""
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    linear = {id(part.weight) for part in model.modules() if isinstance(part, nn.Linear)}
    return [weight for weight in model.parameters() if id(weight) not in tables - linear]


def forward_flops(model: nn.Module, tokens: int) -> int:
    return 2 * tokens * sum(weight.numel() for weight in multiplied(model))


def training_flops(model: nn.Module, tokens: int) -> int:
    """Count a forward, the gradients of the activations, and those of the parameters that are trained: 6 N a token, or
    with adapters 4 N and 2 for each of their parameters."""
    trained = sum(weight.numel() for weight in multiplied(model) if weight.requires_grad)
    return 2 * forward_flops(model, tokens) + 2 * tokens * trained
