"""The vocabulary's weights on a CPU: cast once a step, their gradients added in place to the rows that they touch.

For an embedding, autograd fills a matrix of the vocabulary's size with zeros to add a few rows to it; for a head it
makes one in bf16 and casts it; where the two share their weight it adds both: 154 MB each for GPT-2, and memory of that
size comes from the kernel, page by page. Here both write into one gradient, which stays from step to step. They bypass
autograd's own accumulation, and so `torch.autograd.grad` with respect to such a weight, and a hook on it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_post_hook


def use_direct_gradients(model: Any) -> None:
    """Let the embedding and the head of a model on a CPU, in one process, leave their gradients in place."""
    if model.device.type != "cpu" or torch.distributed.is_initialized():
        return
    for get in ("get_input_embeddings", "get_output_embeddings"):
        module = getattr(model, get)()
        if type(module) is nn.Embedding and not (module.sparse or module.scale_grad_by_freq or module.max_norm):
            module.__class__ = DirectEmbedding
        elif type(module) is nn.Linear and module.bias is None:
            module.__class__ = DirectHead


class DirectEmbedding(nn.Embedding):
    def forward(self, ids: Tensor) -> Tensor:
        return Lookup.apply(ids, self.weight, self.padding_idx)  # type: ignore[no-any-return]


class DirectHead(nn.Linear):
    def forward(self, states: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.weight.dtype
        with torch.autocast("cpu", enabled=False):
            return Product.apply(states.to(dtype), self.weight)  # type: ignore[no-any-return]


class Lookup(torch.autograd.Function):
    """ids [...] → rows of the weight [..., H]; the padding token's row has no gradient."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding = weight, padding
        return functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        (ids,) = ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            total, is_new = gradient_of(ctx.weight)
            if is_new:
                total.zero_()
            if ctx.padding is not None:
                gradient = gradient.masked_fill((ids == ctx.padding)[..., None], 0)
            total.index_add_(0, ids.flatten(), gradient.flatten(0, -2).to(total.dtype))
        return None, None, None


class Product(torch.autograd.Function):
    """states [..., H], weight [V, H] → logits [..., V] in the dtype of the states."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        copy = cast(weight, states.dtype)
        ctx.save_for_backward(states, copy)
        ctx.weight = weight
        return functional.linear(states, copy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        states, copy = ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            total, is_new = gradient_of(ctx.weight)
            left, right = gradient.flatten(0, -2).T, states.flatten(0, -2)
            if total.dtype != left.dtype:
                product = left @ right
                total.copy_(product) if is_new else total.add_(product)
            elif is_new:
                torch.mm(left, right, out=total)
            else:
                total.addmm_(left, right)
        return gradient @ copy if ctx.needs_input_grad[0] else None, None


def gradient_of(weight: Tensor) -> tuple[Tensor, bool]:
    """Return the tensor of a weight's gradient, that of the last step, and whether this step has yet to write it."""
    if is_new := weight.grad is None:
        if not hasattr(weight, "gradient"):
            weight.gradient = torch.empty_like(weight)  # type: ignore[attr-defined]
        weight.grad = weight.gradient  # type: ignore[attr-defined]
    assert weight.grad is not None
    return weight.grad, is_new


def count_step(*_: Any) -> None:
    global optimizer_steps
    optimizer_steps += 1


# A fused optimiser changes weights without a new version of them.
optimizer_steps = 0
register_optimizer_step_post_hook(count_step)


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight in a dtype, in memory of its own that is written again when the weight has changed."""
    if weight.dtype == dtype:
        return weight.detach()
    version = weight._version, optimizer_steps if weight.requires_grad else 0
    written, copy = getattr(weight, "copy_in_bf16", (None, None))
    if copy is None:
        with torch.inference_mode(False):  # a tensor of that mode could not be saved for a backward pass
            copy = torch.empty_like(weight, dtype=dtype)
    if version != written:
        copy.copy_(weight.detach())
        weight.copy_in_bf16 = version, copy  # type: ignore[attr-defined]
    return copy
