"""Attention over the support, forward and backward: ours against the plain form, which holds queries x patches at once.

Time, and the most memory in new tensors (the plain additive form holds queries x patches x features).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from experiments.benchmarks.timing import PeakMemory, Row, interleaved, row
from metadensity.nn.additive import additive_scores_plain
from metadensity.nn.support import Memory, SupportAttention


def rows(quick: bool) -> list[Row]:
    """Additive and dot-product attention of 26x26 places over 8 supports of 7x7 patches, 24 features."""
    tasks, side, entries, planes, repeats = (2, 4, 6, 3, 2) if quick else (4, 26, 8 * 49, 24, 7)
    found = []
    for kind in ("additive", "dot"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            attention = SupportAttention(planes, planes, planes, 2, kind)
            hidden = torch.randn(tasks, planes, side, side)
            keys, values = torch.randn(2, tasks, entries, planes).unbind()
        memory = attention.memorise(keys, values)
        memory = Memory(memory.keys.detach(), memory.values.detach())
        sides = {
            "ours": _gradient(attention, hidden, partial(attention, memory)),
            "plain": _gradient(attention, hidden, partial(plain, attention, memory)),
        }
        for mine, theirs in zip(sides["ours"](), sides["plain"](), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
        memory_of = {}
        for name, side_ in sides.items():
            with PeakMemory() as peak:
                side_()
            memory_of[name] = peak.peak
        seconds = interleaved(sides, repeats)
        found.append(
            row(
                f"attention: {kind}, {tasks} x {side}x{side} places, {entries + 1} patches; ours, plain",
                seconds["ours"],
                seconds["plain"],
                peak_mib=memory_of["ours"] / 2**20,
                peer_peak_mib=memory_of["plain"] / 2**20,
            )
        )
    return found


def plain(attention: SupportAttention, memory: Memory, hidden: Tensor) -> Tensor:
    """What places read, by the formula: all scores, softmax, product."""
    query = attention.query(hidden).flatten(2).mT  # one sample a task: (tasks, places, keys)
    if attention.score is None:
        scores = query @ memory.keys.mT / query.shape[-1] ** 0.5
    else:
        scores = additive_scores_plain(query, memory.keys, attention.score)
    return (scores.softmax(-1) @ memory.values).mT.unflatten(-1, hidden.shape[2:])


def _gradient(
    attention: SupportAttention, hidden: Tensor, read: Callable[[Tensor], Tensor]
) -> Callable[[], list[Tensor]]:
    """A function that gives what is read, and the gradients of its squares in the places and all parameters used."""
    used = [attention.query.weight] + ([attention.score] if attention.score is not None else [])

    def run() -> list[Tensor]:
        leaf = hidden.clone().requires_grad_()
        result = read(leaf)
        return [result.detach(), *torch.autograd.grad(result.square().sum(), [leaf, *used])]

    return run
