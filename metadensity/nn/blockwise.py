"""What the attentions that work block by block share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def as_more_tasks(
    function: Callable[..., Any], info: Any, in_dims: tuple[int | None, ...], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, int]:
    """The vmap rule of a function whose tensors begin with ``tasks``: a batch of calls is one call with more tasks."""
    batched = [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(inputs, in_dims, strict=True)
    ]
    result: Tensor = function(*(tensor.flatten(0, 1) for tensor in batched))
    return result.unflatten(0, (info.batch_size, -1)), 0


def through_softmax(weights: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the scores, from that in their softmax over the last dimension."""
    return weights * (gradient - (gradient * weights).sum(-1, keepdim=True))
