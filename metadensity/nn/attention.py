"""Encoders of support sets, and attention over them.

Every encoder keeps a learned null entry: zero shots are the null alone, and attention over nothing
is defined. All are invariant to the order of the support. Departure: Reed et al. give each support
a 1-of-S index channel, which would make the density depend on their order; it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metadensity.nn.convolution import pointwise
from metadensity.nn.functional.additive_attention import additive_attention, additive_scores
from metadensity.nn.functional.dot_attention import dot_read


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

    def __init__(self, features: int, keys: int, values: int, space_dims: int, kind: str = "additive") -> None:
        super().__init__()
        require_attention(kind)
        self.kind = kind
        self.query = pointwise(features, keys, space_dims)
        self.null_key = nn.Parameter(torch.zeros(keys))
        self.null_value = nn.Parameter(torch.zeros(values))
        self.score = nn.Parameter(torch.randn(keys) / keys**0.5) if kind == "additive" else None

    def with_null_entry(self, keys: Tensor, values: Tensor) -> Memory:
        """Append the null entry."""
        tasks = len(keys)
        null_key, null_value = (null.expand(tasks, 1, -1) for null in (self.null_key, self.null_value))
        return Memory(torch.cat([keys, null_key.to(keys)], 1), torch.cat([values, null_value.to(values)], 1))

    def forward(self, memory: Memory, hidden: Tensor) -> Tensor:
        """What activations ``(samples * tasks, features, *space)`` read: ``(samples * tasks, values, *space)``."""
        query = self._queries(memory, hidden)
        if self.kind == "dot":
            attended = dot_read(query, memory.keys.to(query.dtype), memory.values.to(query.dtype))
        else:
            assert self.score is not None
            q, k, v = (tensor.to(self.score.dtype) for tensor in (query, memory.keys, memory.values))
            attended = additive_attention(q, k, v, self.score).to(memory.values.dtype)
        space = hidden.shape[2:]
        attended = attended.unflatten(1, (-1, space.numel())).permute(1, 0, 3, 2)  # (samples, tasks, values, places)
        return attended.flatten(0, 1).unflatten(-1, space)

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
