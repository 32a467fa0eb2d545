"""What a forward or a training step costs in floating-point operations, estimated: 2 a parameter and token forward, 4
more for the gradients (Kaplan et al. 2020). Attention's own products, small beside these at our lengths, are left out,
and so is what memory is saved with, a forward made twice.
"""

from torch import nn
from torch.nn import Parameter


def multiplied(model: nn.Module) -> list[Parameter]:
    """The parameters that a token is multiplied by: all but tables that are only looked up. One that is also the head
    (GPT-2's and OPT's) is multiplied there."""
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    linear = {id(part.weight) for part in model.modules() if isinstance(part, nn.Linear)}
    return [each for each in model.parameters() if id(each) not in tables - linear]


def forward_flops(model: nn.Module, tokens: int) -> int:
    return 2 * tokens * sum(each.numel() for each in multiplied(model))


def training_flops(model: nn.Module, tokens: int) -> int:
    """Forward, the gradient of what is between the layers, and that of the parameters that are trained: 6 N a token, or
    with adapters 4 N and 2 for each of theirs."""
    trained = sum(each.numel() for each in multiplied(model) if each.requires_grad)
    return 2 * forward_flops(model, tokens) + 2 * tokens * trained
