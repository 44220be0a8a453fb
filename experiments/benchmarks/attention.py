"""Attention over the support, forward and backward: ours against the plain form, which holds queries x patches at once.

Time, and the most memory in new tensors (the plain additive form holds queries x patches x features).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from experiments.benchmarks.timing import PeakMemory, Row, interleaved, row
from metadensity.nn.attention import Memory, SupportAttention
from metadensity.nn.functional import additive_attention as additive
from metadensity.nn.functional.additive_attention import additive_scores_plain


def rows(quick: bool) -> list[Row]:
    """Additive and dot-product attention of 26x26 places over 8 supports of 7x7 patches, 24 features.

    The additive one also as it runs where there are too many scores to be held.
    """
    found = [_row_of(kind, kind, quick) for kind in ("additive", "dot")]
    with patch.object(additive, "HELD", 0):
        found.insert(1, _row_of("additive", "additive, scores not held", quick))
    return found


def _row_of(kind: str, name: str, quick: bool) -> Row:
    tasks, side, entries, planes, repeats = (2, 4, 6, 3, 2) if quick else (4, 26, 8 * 49, 24, 7)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        attention = SupportAttention(planes, planes, planes, 2, kind)
        hidden = torch.randn(tasks, planes, side, side)
        memory = attention.with_null_entry(torch.randn(tasks, entries, planes), torch.randn(tasks, entries, planes))
    sides = {
        "ours": _gradient(attention, memory, hidden, attention),
        "plain": _gradient(attention, memory, hidden, partial(plain, attention)),
    }
    for mine, theirs in zip(sides["ours"](), sides["plain"](), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
    peaks = {}
    for one, side_ in sides.items():
        with PeakMemory() as peak:
            side_()
        peaks[one] = peak.peak / 2**20
    seconds = interleaved(sides, repeats)
    title = f"attention: {name}, {tasks} x {side}x{side} places, {entries + 1} patches; ours, plain"
    return row(title, seconds["ours"], seconds["plain"], peak_mib=peaks["ours"], peer_peak_mib=peaks["plain"])


def plain(attention: SupportAttention, memory: Memory, hidden: Tensor) -> Tensor:
    """What places read, by the formula: all scores, softmax, product."""
    query = attention.query(hidden).flatten(2).mT  # one sample a task: (tasks, places, keys)
    if attention.score is None:
        scores = query @ memory.keys.mT / query.shape[-1] ** 0.5
    else:
        scores = additive_scores_plain(query, memory.keys, attention.score)
    return (scores.softmax(-1) @ memory.values).mT.unflatten(-1, hidden.shape[2:])


def _gradient(
    attention: SupportAttention, memory: Memory, hidden: Tensor, read: Callable[[Memory, Tensor], Tensor]
) -> Callable[[], list[Tensor]]:
    """A function that gives what is read, and the gradients of its squares in places, keys, values and parameters."""
    used = [attention.query.weight] + ([attention.score] if attention.score is not None else [])

    def run() -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in (memory.keys, memory.values, hidden)]
        result = read(Memory(leaves[0], leaves[1]), leaves[2])
        return [result.detach(), *torch.autograd.grad(result.square().sum(), [*leaves, *used])]

    return run
