"""Interpolated counts, of training data, support and the string so far, as an exact density of strings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.densities.counts import SupportCounts
from metadensity.densities.linear_prediction import in_order, out_of_order
from metadensity.densities.sequence import after_an_end
from metadensity.density import SequentialDensity
from metadensity.drawing import Draws

FULL = 2**63 - 1  # the key of an entry that is none


class CountTable(nn.Module):
    """How often each symbol came after each context of up to ``order`` symbols, in a training set.

    An n-gram is known by its key, the number of its context times ``levels`` plus its symbol; contexts that begin
    before the first place are filled up with a symbol of their own. Of each length of context at most ``entries``
    n-grams are held, the most frequent ones; what is left out is not counted at all, so that counts still add up.

    keys: ``(order + 1, entries)`` int64, ascending, ``FULL`` after the last; counts: likewise, 0 after the last.
    """

    keys: Tensor
    counts: Tensor

    def __init__(self, levels: int, order: int, entries: int) -> None:
        super().__init__()
        self.levels, self.order, self.entries = levels, order, entries
        self.register_buffer("keys", torch.full((order + 1, entries), FULL))
        self.register_buffer("counts", torch.zeros(order + 1, entries, dtype=torch.int64))

    def count(self, contexts: Tensor, symbols: Tensor) -> int:
        """Take the counts of places with contexts ``(places, order + 1)`` and symbols ``(places,)``.

        Returns how many n-grams, of all lengths, there was no room for.
        """
        left_out = 0
        for length in range(self.order + 1):
            keys, counts = (contexts[:, length] * self.levels + symbols).unique(return_counts=True)
            if len(keys) > self.entries:
                kept = counts.argsort(descending=True, stable=True)[: self.entries].sort().values
                left_out += len(keys) - self.entries
                keys, counts = keys[kept], counts[kept]
            self.keys[length, : len(keys)], self.counts[length, : len(keys)] = keys, counts
        return left_out

    def look_up(self, length: int, contexts: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Counts of symbols after contexts, of all symbols after them, and of how many different ones; as they are.

        contexts: numbers of contexts of ``length`` symbols; symbols: of a shape that broadcasts with theirs.
        """
        keys = self.keys[length]
        running = torch.cat([keys.new_zeros(1), self.counts[length].cumsum(0)])
        first, end = (torch.searchsorted(keys, (contexts + more) * self.levels) for more in (0, 1))
        at = torch.searchsorted(keys, contexts * self.levels + symbols)
        here = at.clamp(max=self.entries - 1)
        found = torch.where(keys[here] == contexts * self.levels + symbols, self.counts[length][here], 0)
        return found, running[end] - running[first], end - first


class NGramDensity(SequentialDensity):
    """p(x_t | x_<t) from counts after contexts of 0 to ``order`` symbols, each interpolated with the next shorter one.

    First the training data (Witten and Bell 1991): p_k = (n + d p_{k-1}) / (m + d), where n counts the symbol after
    the context, m all symbols after it, and d different ones; p_{-1} is uniform. On top of the longest, likewise, what
    the support and the string so far count, with learned strengths in place of d: ``SupportCounts``. Exact.

    table: of the training data. counts: of the support, of contexts as long as those of the table.
    """

    def __init__(
        self,
        table: CountTable,
        counts: SupportCounts,
        event_shape: Sequence[int],
        end: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.table, self.counts, self.end = table, counts, end
        super().__init__(len(counts.symbols), event_shape, table.levels, validate_args)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.counts.strengths.device

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        sites = in_order(value, len(self.event_shape) - 1).long()
        if not sites.numel():
            return self.counts.strengths.new_zeros(value.shape)
        sample = sites.shape[:-2]
        x = sites.reshape(-1, *sites.shape[-2:])  # (N, tasks, places)
        terms = self._ended(x, self.counts.at_places(self._trained(self.counts.contexts_of(x), x), x))
        return out_of_order(terms.view(*sample, *sites.shape[-2:]), self.event_shape)

    def _level_log_probs(self, value: Tensor) -> Tensor:
        dims = len(self.event_shape) - 1
        sites = in_order(value, dims).long()
        if not sites.numel():
            return super()._level_log_probs(value)
        x = sites.reshape(-1, *sites.shape[-2:])
        contexts, every = self.counts.contexts_of(x), [torch.full_like(x, level) for level in range(self.levels)]
        found = [self.counts.at_places(self._trained(contexts, each), x, each).log() for each in every]
        if self.end is not None:
            ended = after_an_end(x, self.end)
            found = [torch.where(ended, 0.0 if i == self.end else -torch.inf, each) for i, each in enumerate(found)]
        return out_of_order(torch.stack(found, -2).view(*sites.shape[:-1], self.levels, -1), self.event_shape)

    def _trained(self, contexts: Tensor, symbols: Tensor) -> Tensor:
        """p of the training data, of the shape of ``symbols``; contexts ``(..., order + 1)`` broadcast with it."""
        p = torch.full_like(symbols, 1 / self.levels, dtype=self.counts.strengths.dtype)
        if not self.table.counts[0, 0]:
            return p  # nothing was counted
        for length in range(self.table.order + 1):
            found, total, kinds = self.table.look_up(length, contexts[..., length], symbols)
            p = torch.where(kinds > 0, (found + kinds * p) / (total + kinds).clamp(min=1), p)
        return p

    def _ended(self, x: Tensor, p: Tensor) -> Tensor:
        """log p, but after an end nothing is possible but ends, which are free."""
        if self.end is None:
            return p.log()
        free = torch.where(x == self.end, 0.0, -torch.inf)
        return torch.where(after_an_end(x, self.end), free, p.log())

    def _drawn(self, draws: Draws) -> Tensor:
        dims = len(self.event_shape) - 1
        flat = draws.map(lambda part: in_order(part, dims))
        shape, levels = flat.uniforms.shape, torch.arange(self.levels, device=self.device)
        x = torch.zeros(shape, dtype=torch.long, device=self.device)
        every = levels.expand(*shape[:-1], -1)
        for place in range(shape[-1]):
            here = self.counts.contexts_of(x[..., : place + 1])[..., -1, :]  # (*sample, tasks, order + 1)
            p = self.counts.of_levels(self._trained(here.unsqueeze(-2), every), x[..., :place])
            logits = p.log()
            if self.end is not None:
                ended = (x[..., :place] == self.end).any(-1, keepdim=True)
                logits = torch.where(ended, torch.where(levels == self.end, 0.0, -torch.inf), logits)
            x[..., place] = flat.map(lambda part, place=place: part[..., place]).levels(logits)  # type: ignore[misc]
        return out_of_order(x, self.event_shape)
