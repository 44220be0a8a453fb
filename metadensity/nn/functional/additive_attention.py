"""Additive attention without holding queries x patches at once, and its scores without queries x patches x features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from metadensity.native import additive_attention as native_additive
from metadensity.native.calls import bfloat16_wanted
from metadensity.nn.functional.blockwise import forward_mode, recomputed_function, softmax_backward, vmap_as_tasks

HELD = 1 << 24  # scores, 64 MiB of float32
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
        return vmap_as_tasks(_AdditiveScores.apply, info, in_dims, inputs)


def additive_attention(query: Tensor, keys: Tensor, values: Tensor, score: Tensor) -> Tensor:
    """What queries read, the faster way that memory allows; see ``additive_read_plain``.

    Up to HELD scores are held where a gradient may be asked for, which then needs a pass less; beyond that none are,
    nor where the native kernel computes. On the CPU it is float32 under autocast too, as the kernel is.
    In forward mode (jvp) it is the plain form.
    """
    if bfloat16_wanted() and query.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):
            return additive_attention(query.float(), keys.float(), values.float(), score.float())
    if forward_mode():
        return additive_read_plain(query, keys, values, score)
    few = query[..., 0].numel() * keys.shape[1] <= HELD
    if few and torch.is_grad_enabled() and not native_additive.possible(query, keys, values, score):
        return additive_scores(query, keys, score).softmax(-1) @ values
    return additive_read(query, keys, values, score)


def additive_read_plain(query: Tensor, keys: Tensor, values: Tensor, score: Tensor) -> Tensor:
    """What queries read, sum_j softmax_j(e_tj) value_j, at once: the oracle of ``additive_read``.

    values: ``(tasks, J, V)``; the others as in ``additive_scores_plain``. Returns ``(tasks, T, V)``.
    """
    return additive_scores_plain(query, keys, score).softmax(-1) @ values


def additive_read(query: Tensor, keys: Tensor, values: Tensor, score: Tensor) -> Tensor:
    """The same block by block: memory grows with T and with J, not with T x J; the gradient computes it all again.

    Works under torch.func, also where each task has a ``score`` of its own. A gradient of the gradient goes through
    the plain form, with its memory.
    """
    return _additive_read(query, keys, values, score.expand(len(query), -1))


def _read(query: Tensor, keys: Tensor, values: Tensor, score: Tensor) -> Tensor:
    """query ``(tasks, T, P)``, keys ``(tasks, J, P)``, values ``(tasks, J, V)``, score ``(tasks, P)``."""
    if native_additive.possible(query, keys, values, score):
        return native_additive.attend(query, keys, values, score)
    attended = query.new_empty(*query.shape[:2], values.shape[2])
    for task, rows in _blocks(query, keys):
        block = torch.tanh_(query[task, rows].unsqueeze(1) + keys[task])
        torch.matmul((block @ score[task]).softmax(-1), values[task], out=attended[task, rows])
    return attended


def _gradients(gradient: Tensor, query: Tensor, keys: Tensor, values: Tensor, score: Tensor) -> tuple[Tensor, ...]:
    if torch.is_grad_enabled():  # create_graph=True, or inside torch.func: this gradient will be differentiated
        block = torch.tanh(query.unsqueeze(2) + keys.unsqueeze(1))  # (tasks, T, J, P)
        weights = (block @ score[:, None, :, None]).squeeze(3).softmax(-1)  # (tasks, T, J)
        slope = softmax_backward(weights, gradient @ values.mT).unsqueeze(3)
        inner = slope * (1 - block.square()) * score[:, None, None]
        return inner.sum(2), inner.sum(1), weights.mT @ gradient, (slope * block).sum((1, 2))
    if native_additive.possible(query, keys, values, score):
        return native_additive.gradients(gradient, query, keys, values, score)
    for_query, for_keys = torch.empty_like(query), torch.zeros_like(keys)
    for_values, for_score = torch.zeros_like(values), score.new_zeros(score.shape)
    for task, rows in _blocks(query, keys):
        block = torch.tanh_(query[task, rows].unsqueeze(1) + keys[task])  # (rows, J, P)
        weights = (block @ score[task]).softmax(-1)  # (rows, J)
        for_values[task].addmm_(weights.T, gradient[task, rows])
        slope = softmax_backward(weights, gradient[task, rows] @ values[task].T)
        for_score[task] += slope.flatten() @ block.flatten(0, 1)
        inner = torch.addcmul(slope.unsqueeze(2), block.square_(), slope.unsqueeze(2), value=-1)  # times 1 - tanh^2
        for_query[task, rows] = inner.sum(1)
        for_keys[task] += inner.sum(0)
    return for_query.mul_(score.unsqueeze(1)), for_keys.mul_(score.unsqueeze(1)), for_values, for_score


def _blocks(query: Tensor, keys: Tensor) -> Iterator[tuple[int, slice]]:
    step = max(1, BLOCK // max(1, keys[0].numel()))
    for task in range(len(query)):
        for start in range(0, query.shape[1], step):
            yield task, slice(start, start + step)


_additive_read = recomputed_function(_read, _gradients)
