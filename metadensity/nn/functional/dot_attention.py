"""Dot-product attention that holds no queries x patches, and whose gradient has a gradient."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from metadensity.nn.functional.blockwise import blocks, forward_mode, recomputed_function, softmax_backward


def dot_read_plain(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What queries ``(tasks, T, P)`` read from keys ``(tasks, J, P)`` and values ``(tasks, J, V)``: the oracle."""
    return (query @ keys.mT / query.shape[-1] ** 0.5).softmax(-1) @ values


def dot_read(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The same block by block: memory grows with T and with J, not with T x J; the gradient computes it all again.

    torch's fused kernel cannot be differentiated twice. Here a gradient of the gradient goes through the plain form,
    with its memory. Works under torch.func. In forward mode it is the plain form.
    """
    if forward_mode():
        return dot_read_plain(query, keys, values)
    return _dot_read(query, keys, values)


def _read(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scale = query.shape[-1] ** -0.5
    attended = query.new_empty(*query.shape[:2], values.shape[2])
    for rows in _blocks(query, keys):
        attended[:, rows] = (query[:, rows] * scale @ keys.mT).softmax(-1) @ values
    return attended


def _gradients(gradient: Tensor, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
    scale = query.shape[-1] ** -0.5
    if torch.is_grad_enabled():  # create_graph=True, or inside torch.func: this gradient will be differentiated
        weights = (query * scale @ keys.mT).softmax(-1)
        slope = softmax_backward(weights, gradient @ values.mT) * scale
        return slope @ keys, slope.mT @ query, weights.mT @ gradient
    for_query, for_keys, for_values = torch.empty_like(query), torch.zeros_like(keys), torch.zeros_like(values)
    for rows in _blocks(query, keys):
        scaled = query[:, rows] * scale
        weights = (scaled @ keys.mT).softmax(-1)
        for_values.baddbmm_(weights.mT, gradient[:, rows])
        slope = softmax_backward(weights, gradient[:, rows] @ values.mT)
        for_keys.baddbmm_(slope.mT, scaled)
        for_query[:, rows] = slope @ keys
    return for_query.mul_(scale), for_keys, for_values


def _blocks(query: Tensor, keys: Tensor) -> Iterator[slice]:
    return blocks(query.shape[1], keys[..., 0].numel(), query.device)


_dot_read = recomputed_function(_read, _gradients)
