"""Encoders of support sets, and attention over them.

Every encoder keeps a learned null entry: zero shots are the null alone, and attention over nothing
is defined. All are invariant to the order of the support. Departure: Reed et al. give each support
a 1-of-S index channel, which would make the density depend on their order; it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.nn.additive import additive_attention, additive_scores
from metadensity.nn.causal import CONV, pointwise, positions
from metadensity.nn.dot import dot_read


def scale(pixels: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Integer pixels in [0, levels) as floats in [-1, 1]."""
    return pixels.to(dtype) * (2 / (levels - 1)) - 1


class PixelInput(nn.Module):
    """Images as features: pixels scaled to [-1, 1] with position channels, ``(batch, C + dims, *space)``.

    The position channels mark the border as well, where zero padding could pass for a pixel.
    """

    positions: Tensor

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.features = event_shape[0] + len(event_shape) - 1
        self.register_buffer("positions", positions(tuple(event_shape[1:])), persistent=False)

    def forward(self, pixels: Tensor, index: tuple[slice, ...] = ()) -> Tensor:
        """Encode ``(batch, C, *space)`` integers, or only the places at ``index``, slices of all dimensions."""
        x = scale(pixels[index], self.levels, self.positions.dtype)
        where = self.positions[index[1:]]
        return torch.cat([x, where.expand(len(x), *where.shape)], dim=1)


class VectorEncoder(nn.Module):
    """f(s): a convolutional encoder that turns a support set into one vector a task.

    Supports ``(S, tasks, C, *space)`` are halved by stride-2 convolutions to at most 4 places a
    dimension, mapped to ``features`` each, and averaged together with the learned null entry.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, planes: int, features: int) -> None:
        super().__init__()
        space, dims = list(event_shape[1:]), len(event_shape) - 1
        self.input = PixelInput(event_shape, levels)
        layers: list[nn.Module] = [CONV[dims](self.input.features, planes, 3, padding=1), nn.ReLU()]
        while max(space) > 4:
            layers += [CONV[dims](planes, planes, 3, stride=2, padding=1), nn.ReLU()]
            space = [(size + 1) // 2 for size in space]
        self.convs = nn.Sequential(*layers)
        self.project = nn.Linear(planes * math.prod(space), features)
        self.null = nn.Parameter(torch.zeros(features))

    def forward(self, support: Tensor) -> Tensor:
        """The task vectors, ``(tasks, features)``."""
        shots, tasks = support.shape[:2]
        if not shots:
            return self.null.expand(tasks, -1)
        x = self.convs(self.input(support.flatten(0, 1))).flatten(1)
        return (self.project(x).unflatten(0, (shots, tasks)).sum(0) + self.null) / (shots + 1)


class PatchEncoder(nn.Module):
    """Keys and values of the support patches for attention (Reed et al. 2018, section 3.2).

    A two-layer CNN with 4-wide kernels, so that one unit sees 10 places a dimension, as in the paper. Supports
    ``(S, tasks, C, *space)`` give ``S * K`` patches a task, K of them an image.

    stride: places from one patch to the next: 4, two strides of 2, as published; or 2 or 1, the same function of the
        patches in between (the second layer dilated where the first has no stride), with 4 or 16 times as many in
        an image.
    """

    def __init__(
        self, event_shape: Sequence[int], levels: int, planes: int, keys: int, values: int, stride: int = 4
    ) -> None:
        super().__init__()
        require_stride(stride)
        dims = len(event_shape) - 1
        first, second, dilation = {4: (2, 2, 1), 2: (2, 1, 1), 1: (1, 1, 2)}[stride]
        self.input = PixelInput(event_shape, levels)
        self.first = CONV[dims](self.input.features, planes, 4, stride=first)
        self.second = CONV[dims](planes, keys + values, 4, stride=second, dilation=dilation)
        self.keys, self.values = keys, values
        self._pads = [1, 2] * dims, [dilation, 2 * dilation] * dims  # ceil(n / stride) places out of n, down to one
        self.grid = tuple(-(-size // stride) for size in event_shape[1:])

    def forward(self, support: Tensor) -> tuple[Tensor, Tensor]:
        """Keys ``(tasks, S * K, keys)`` and values ``(tasks, S * K, values)``."""
        shots, tasks = support.shape[:2]
        if not shots:
            empty = self.second.weight.new_zeros(tasks, 0, self.keys + self.values)
            return empty[..., : self.keys], empty[..., self.keys :]
        x = F.relu(self.first(F.pad(self.input(support.flatten(0, 1)), self._pads[0])))
        x = self.second(F.pad(x, self._pads[1])).flatten(2).unflatten(0, (shots, tasks))
        patches = x.permute(1, 0, 3, 2).flatten(1, 2)  # (tasks, S * K, features)
        return patches[..., : self.keys], patches[..., self.keys :]


def require_stride(stride: int) -> None:
    """Raise ValueError unless patches can be so many places apart."""
    if stride not in (1, 2, 4):
        raise ValueError(f"patch_stride={stride!r}; patches of the support are 4 (as published), 2 or 1 places apart.")


@dataclass(frozen=True)
class Memory:
    """Keys ``(tasks, J, keys)`` and values ``(tasks, J, values)`` of a batch of tasks; the last entry is the null."""

    keys: Tensor
    values: Tensor


class SupportAttention(nn.Module):
    """Attention of every place of the image over all support patches jointly.

    kind: "additive", as published: e_tj = v' tanh(q_t + key_j), softmax over j, read_t = sum_j a_tj value_j
        (Reed et al. 2018, equations 5 to 7, as recalled); or "dot", scaled dot products.
    """

    def __init__(self, features: int, keys: int, values: int, dims: int, kind: str = "additive") -> None:
        super().__init__()
        require_attention(kind)
        self.kind = kind
        self.query = pointwise(features, keys, dims)
        self.null_key = nn.Parameter(torch.zeros(keys))
        self.null_value = nn.Parameter(torch.zeros(values))
        self.score = nn.Parameter(torch.randn(keys) / keys**0.5) if kind == "additive" else None

    def memorise(self, keys: Tensor, values: Tensor) -> Memory:
        """Append the null entry."""
        tasks = len(keys)
        null_key, null_value = (null.expand(tasks, 1, -1) for null in (self.null_key, self.null_value))
        return Memory(torch.cat([keys, null_key.to(keys)], 1), torch.cat([values, null_value.to(values)], 1))

    def forward(self, memory: Memory, hidden: Tensor) -> Tensor:
        """What activations ``(samples * tasks, features, *space)`` read: ``(samples * tasks, values, *space)``."""
        query = self._queries(memory, hidden)
        if self.kind == "dot":
            read = dot_read(query, memory.keys.to(query.dtype), memory.values.to(query.dtype))
        else:
            assert self.score is not None
            q, k, v = (tensor.to(self.score.dtype) for tensor in (query, memory.keys, memory.values))
            read = additive_attention(q, k, v, self.score).to(memory.values.dtype)
        space = hidden.shape[2:]
        read = read.unflatten(1, (-1, space.numel())).permute(1, 0, 3, 2)  # (samples, tasks, values, places)
        return read.flatten(0, 1).unflatten(-1, space)

    def weights(self, memory: Memory, hidden: Tensor) -> Tensor:
        """Attention weights ``(samples, tasks, J, *space)``; they sum to one over J, the null last."""
        space = hidden.shape[2:]
        weights = self._weights(memory, self._queries(memory, hidden))
        weights = weights.unflatten(1, (-1, space.numel())).permute(1, 0, 3, 2)
        return weights.unflatten(-1, space)

    def _queries(self, memory: Memory, hidden: Tensor) -> Tensor:
        tasks = len(memory.keys)
        query = self.query(hidden).flatten(2).unflatten(0, (-1, tasks))  # (samples, tasks, keys, places)
        return query.permute(1, 0, 3, 2).flatten(1, 2)  # (tasks, samples * places, keys)

    def _weights(self, memory: Memory, query: Tensor) -> Tensor:
        if self.score is None:
            scores = query @ memory.keys.mT / query.shape[-1] ** 0.5
        else:
            scores = additive_scores(query.to(self.score.dtype), memory.keys.to(self.score.dtype), self.score)
        return scores.softmax(-1)


def require_attention(kind: str) -> None:
    """Raise ValueError unless ``kind`` is an attention there is."""
    if kind not in ("additive", "dot"):
        raise ValueError(f"attention={kind!r}; choose 'additive' (as published) or 'dot' (scaled dot product).")
