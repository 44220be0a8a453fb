"""Dot-product attention that holds no queries x patches, and whose gradient has a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from metadensity.nn.blockwise import as_more_tasks, through_softmax

BLOCK = 1 << 20  # scores in flight: 4 MiB of float32, which caches hold
CUDA_BLOCK = 1 << 27  # 512 MiB: a GPU is faster the more there is to do at once


def dot_read_plain(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What queries ``(tasks, T, P)`` read from keys ``(tasks, J, P)`` and values ``(tasks, J, V)``: the oracle."""
    return (query @ keys.mT / query.shape[-1] ** 0.5).softmax(-1) @ values


def dot_read(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The same block by block: memory grows with T and with J, not with T x J; the gradient computes it all again.

    torch's fused kernel cannot be differentiated twice. Here a gradient of the gradient goes through the plain form,
    with its memory. Works under torch.func.
    """
    with torch.autocast(query.device.type, enabled=False):  # all is of one precision, which it would mix
        result: Tensor = _DotRead.apply(query, keys, values)
    return result


class _DotRead(torch.autograd.Function):
    @staticmethod
    def forward(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        scale = query.shape[-1] ** -0.5
        read = query.new_empty(*query.shape[:2], values.shape[2])
        for rows in _blocks(query, keys):
            read[:, rows] = (query[:, rows] * scale @ keys.mT).softmax(-1) @ values
        return read

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(gradient.device.type, enabled=False):
            return _DotRead._gradients(gradient, *ctx.saved_tensors)

    @staticmethod
    def _gradients(gradient: Tensor, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        scale = query.shape[-1] ** -0.5
        if torch.is_grad_enabled():  # create_graph=True, or inside torch.func: this gradient will be differentiated
            weights = (query * scale @ keys.mT).softmax(-1)
            slope = through_softmax(weights, gradient @ values.mT) * scale
            return slope @ keys, slope.mT @ query, weights.mT @ gradient
        for_query, for_keys, for_values = torch.empty_like(query), torch.zeros_like(keys), torch.zeros_like(values)
        for rows in _blocks(query, keys):
            scaled = query[:, rows] * scale
            weights = (scaled @ keys.mT).softmax(-1)
            for_values.baddbmm_(weights.mT, gradient[:, rows])
            slope = through_softmax(weights, gradient[:, rows] @ values.mT)
            for_keys.baddbmm_(slope.mT, scaled)
            for_query[:, rows] = slope @ keys
        return for_query.mul_(scale), for_keys, for_values

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        return as_more_tasks(_DotRead.apply, info, in_dims, inputs)


def _blocks(query: Tensor, keys: Tensor) -> Iterator[slice]:
    step = max(1, (CUDA_BLOCK if query.is_cuda else BLOCK) // max(1, keys[..., 0].numel()))
    for start in range(0, query.shape[1], step):
        yield slice(start, start + step)
