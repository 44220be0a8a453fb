"""What the functions that work block by block share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

BLOCK = 1 << 20  # scores in flight: 4 MiB of float32, which caches hold
CUDA_BLOCK = 1 << 27  # 512 MiB: a GPU is faster the more there is to do at once


def blocks(count: int, scores: int, device: torch.device) -> Iterator[slice]:
    """Slices of ``count`` rows that have so many ``scores`` each: as many rows as BLOCK scores are, one at least."""
    step = max(1, (CUDA_BLOCK if device.type == "cuda" else BLOCK) // max(1, scores))
    for start in range(0, count, step):
        yield slice(start, start + step)


def recomputed_function(
    forward: Callable[..., Tensor], gradients: Callable[..., tuple[Tensor, ...]]
) -> Callable[..., Tensor]:
    """``forward(*inputs)`` with the gradient ``gradients(gradient, *inputs)``: nothing but the inputs is held for it.

    All inputs begin with ``tasks`` and are of one precision, which autocast would mix: it is off in both. Works under
    torch.func. Where gradients are enabled inside ``gradients``, what it returns will be differentiated itself.
    """

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*inputs: Tensor) -> Tensor:
            return forward(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
            with torch.autocast(gradient.device.type, enabled=False):
                return gradients(gradient, *ctx.saved_tensors)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
            return vmap_as_tasks(Function.apply, info, in_dims, inputs)

    Function.__module__, Function.__qualname__ = forward.__module__, forward.__qualname__  # as whose it is known

    def call(*inputs: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, enabled=False):
            result: Tensor = Function.apply(*inputs)
        return result

    return call


def vmap_as_tasks(
    function: Callable[..., Any], info: Any, in_dims: tuple[int | None, ...], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, int]:
    """The vmap rule of a function whose tensors begin with ``tasks``: a batch of calls is one call with more tasks."""
    batched = [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(inputs, in_dims, strict=True)
    ]
    result: Tensor = function(*(tensor.flatten(0, 1) for tensor in batched))
    return result.unflatten(0, (info.batch_size, -1)), 0


def forward_mode() -> bool:
    """Whether torch differentiates in forward mode (jvp), which only the plain forms take."""
    return forward_ad._current_level >= 0


def softmax_backward(weights: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the scores, from that in their softmax over the last dimension."""
    return weights * (gradient - (gradient * weights).sum(-1, keepdim=True))
