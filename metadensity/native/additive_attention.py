"""Additive attention as a native kernel: float32 on the CPU, several times faster than in torch."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from metadensity.native.buffer_pool import empty_from_pool
from metadensity.native.build import CSRC, Arguments, Kernel, fields
from metadensity.native.calls import in_threads, shares, usable

LARGEST = 20.0  # of queries and keys: exp(2 q) exp(2 k) fits into float32


class _Attention(Arguments):
    """``Attention`` in the source."""

    _fields_ = fields(
        "tasks queries keys features values",
        "query key value score attended grad_attended grad_query grad_key grad_value grad_score",
    )


_number, _pointer = ctypes.c_int64, ctypes.POINTER(_Attention)
KERNEL = Kernel(
    CSRC / "additive_attention.cpp",
    "Attentions",
    _Attention,
    {f"additive_{name}": ([_pointer, _number, _number], None) for name in ("forward", "backward")},
)
library = KERNEL.library


def possible(query: Tensor, keys: Tensor, values: Tensor, score: Tensor) -> bool:
    """Whether the kernel can attend: see ``usable``; and no query and no key is beyond LARGEST."""
    if not usable((query, keys, values, score)) or library() is None:
        return False
    with torch.no_grad():
        return all(bool(end.abs() <= LARGEST) for tensor in (query, keys) for end in torch.aminmax(tensor))


def attend(query: Tensor, keys: Tensor, values: Tensor, score: Tensor) -> Tensor:
    """What queries read, ``(tasks, T, V)``; the inputs are those of ``additive_attention._read``."""
    result = empty_from_pool(*query.shape[:2], values.shape[2])
    _run("forward", query, keys, values, score, attended=result)
    return result


def gradients(
    gradient: Tensor, query: Tensor, keys: Tensor, values: Tensor, score: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the four inputs from that of what was read."""
    found = [torch.empty(tensor.shape, dtype=torch.float32) for tensor in (query, keys, values, score)]
    names = ("grad_query", "grad_key", "grad_value", "grad_score")
    _run("backward", query, keys, values, score, grad_attended=gradient, **dict(zip(names, found, strict=True)))
    return found[0], found[1], found[2], found[3]


def _run(direction: str, query: Tensor, keys: Tensor, values: Tensor, score: Tensor, **more: Tensor) -> None:
    tasks, queries, features = query.shape
    call = _Attention(tasks, queries, keys.shape[1], features, values.shape[2])
    pointed = {"query": query, "key": keys, "value": values, "score": score, **more}
    held = {name: tensor.detach().contiguous() for name, tensor in pointed.items()}
    for name, tensor in held.items():
        setattr(call, name, tensor.data_ptr())
    function = getattr(library(), f"additive_{direction}")
    in_threads(lambda _, first, last: function(ctypes.byref(call), first, last), shares(tasks, 1))
