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

    A gradient of the gradient goes through the plain form, with its memory.
    """
    result: Tensor = _AdditiveScores.apply(query, keys, score)
    return result


class _AdditiveScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, score: Tensor) -> Tensor:
        ctx.save_for_backward(query, keys, score)
        scores = query.new_empty(*query.shape[:2], keys.shape[1])
        for task, rows in _blocks(query, keys):
            block = torch.tanh_(query[task, rows].unsqueeze(1) + keys[task])
            torch.matmul(block, score, out=scores[task, rows])
        return scores

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        query, keys, score = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: this gradient will be differentiated
            scores = additive_scores_plain(query, keys, score)
            return torch.autograd.grad(scores, (query, keys, score), gradient, create_graph=True)
        for_query, for_keys, for_score = torch.empty_like(query), torch.zeros_like(keys), torch.zeros_like(score)
        for task, rows in _blocks(query, keys):
            block = torch.tanh_(query[task, rows].unsqueeze(1) + keys[task])  # (rows, J, P)
            slope = gradient[task, rows]  # (rows, J)
            for_score += slope.flatten() @ block.flatten(0, 1)
            inner = torch.addcmul(slope.unsqueeze(2), block.square_(), slope.unsqueeze(2), value=-1)  # times 1 - tanh^2
            for_query[task, rows] = inner.sum(1)
            for_keys[task] += inner.sum(0)
        return for_query.mul_(score), for_keys.mul_(score), for_score


def _blocks(query: Tensor, keys: Tensor) -> Iterator[tuple[int, slice]]:
    step = max(1, BLOCK // max(1, keys[0].numel()))
    for task in range(len(query)):
        for start in range(0, query.shape[1], step):
            yield task, slice(start, start + step)
