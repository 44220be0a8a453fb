"""Additive attention scores without holding queries x patches x features at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 1 << 18  # numbers in flight: 1 MiB of float32, which stays in a core's cache


def additive_scores_plain(query: Tensor, keys: Tensor, score: Tensor) -> Tensor:
    """e_tj = v' tanh(q_t + k_j) at once, the oracle of ``additive_scores``.

    query: ``(tasks, T, P)``; keys: ``(tasks, J, P)``; score: ``(P,)``. Returns ``(tasks, T, J)``.
    """
    return torch.tanh(query.unsqueeze(2) + keys.unsqueeze(1)) @ score


def additive_scores(query: Tensor, keys: Tensor, score: Tensor) -> Tensor:
    """The same block by block: memory grows with T x J, and the tanh is computed again for the gradient.

    Works under torch.func, also where each task has a ``score`` of its own. A gradient of the gradient goes through
    the plain form, with its memory.
    """
    result: Tensor = _AdditiveScores.apply(query, keys, score.expand(len(query), -1))
    return result


class _AdditiveScores(torch.autograd.Function):
    """query ``(tasks, T, P)``, keys ``(tasks, J, P)``, score ``(tasks, P)``."""

    @staticmethod
    def forward(query: Tensor, keys: Tensor, score: Tensor) -> Tensor:
        scores = query.new_empty(*query.shape[:2], keys.shape[1])
        for task, rows in _blocks(query, keys):
            block = torch.tanh_(query[task, rows].unsqueeze(1) + keys[task])
            torch.matmul(block, score[task], out=scores[task, rows])
        return scores

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        query, keys, score = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True, or inside torch.func: this gradient will be differentiated
            block = torch.tanh(query.unsqueeze(2) + keys.unsqueeze(1))  # (tasks, T, J, P)
            inner = gradient.unsqueeze(3) * (1 - block.square()) * score[:, None, None]
            return inner.sum(2), inner.sum(1), (gradient.unsqueeze(3) * block).sum((1, 2))
        for_query, for_keys, for_score = torch.empty_like(query), torch.zeros_like(keys), score.new_zeros(score.shape)
        for task, rows in _blocks(query, keys):
            block = torch.tanh_(query[task, rows].unsqueeze(1) + keys[task])  # (rows, J, P)
            slope = gradient[task, rows]  # (rows, J)
            for_score[task] += slope.flatten() @ block.flatten(0, 1)
            inner = torch.addcmul(slope.unsqueeze(2), block.square_(), slope.unsqueeze(2), value=-1)  # times 1 - tanh^2
            for_query[task, rows] = inner.sum(1)
            for_keys[task] += inner.sum(0)
        return for_query.mul_(score.unsqueeze(1)), for_keys.mul_(score.unsqueeze(1)), for_score

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        """A batch of calls is one call with more tasks."""
        batched = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(inputs, in_dims, strict=True)
        ]
        scores = _AdditiveScores.apply(*(tensor.flatten(0, 1) for tensor in batched))
        return scores.unflatten(0, (info.batch_size, -1)), 0


def _blocks(query: Tensor, keys: Tensor) -> Iterator[tuple[int, slice]]:
    step = max(1, BLOCK // max(1, keys[0].numel()))
    for task in range(len(query)):
        for start in range(0, query.shape[1], step):
            yield task, slice(start, start + step)
