"""Counts of a support and of the string so far, interpolated on top of other probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.densities.sequence import after_an_end
from metadensity.density import DerivedDensity, SequentialDensity
from metadensity.drawing import Draws

_NUMBERS_AT_A_TIME = 2**22  # in tables of places by places


def context_numbers(sites: Tensor, levels: int, order: int) -> Tensor:
    """The number of each context of 0 to ``order`` symbols before each place: ``(..., places, order + 1)`` int64."""
    padded = torch.cat([sites.new_full((*sites.shape[:-1], order), levels), sites], -1)
    numbers = [torch.zeros_like(sites)]
    for length in range(1, order + 1):
        newest = padded[..., order - length : padded.shape[-1] - length]
        numbers.append(numbers[-1] + newest * (levels + 1) ** (length - 1))
    return torch.stack(numbers, -1)


@dataclass(frozen=True)
class SupportCounts:
    """How often each symbol came after each context of up to ``order`` symbols, in the supports of each task.

    On top of given probabilities p, each length of context in turn is interpolated with the next shorter one: (n + s p)
    / (m + s), where n counts the symbol after the context, in the supports and in the string so far, m all symbols
    after it, and s is the strength of p at this length. What was a distribution is one again.

    strengths: ``(order + 1,)``, positive. symbols: ``(tasks, J)`` of all supports of a task. contexts: ``(tasks, J,
    order + 1)`` theirs. real: ``(tasks, J)`` which of them count.
    """

    strengths: Tensor
    symbols: Tensor
    contexts: Tensor
    real: Tensor
    levels: int

    @classmethod
    def of(
        cls, support: Tensor, strengths: Tensor, levels: int, real: Tensor | None = None, end: int | None = None
    ) -> SupportCounts:
        """Those of strings ``(S, tasks, places)``.

        real: ``(S, tasks, places)`` which places there are. end: of each string what follows this level is not counted.
        """
        sites = support.long()
        counted = torch.ones_like(sites, dtype=torch.bool) if real is None else real
        if end is not None:
            counted = counted & ~after_an_end(sites, end)
        parts = (sites, context_numbers(sites, levels, len(strengths) - 1), counted)
        symbols, contexts, real = (part.transpose(0, 1).flatten(1, 2) for part in parts)
        return cls(strengths, symbols, contexts, real, levels)

    def contexts_of(self, x: Tensor) -> Tensor:
        """``context_numbers`` of strings."""
        return context_numbers(x, self.levels, len(self.strengths) - 1)

    def at_places(self, p: Tensor, x: Tensor, asked: Tensor | None = None) -> Tensor:
        """On top of probabilities ``(n, tasks, places)`` of the symbols x of as many strings, or of those ``asked``.

        As many places are compared with all symbols at a time as ``_NUMBERS_AT_A_TIME`` allows.
        """
        _, tasks, places = x.shape
        rows = max(1, _NUMBERS_AT_A_TIME // (tasks * (places + self.symbols.shape[-1])))  # of strings, or of one
        strings, step = max(1, rows // places), min(places, rows)
        found = []
        asked = x if asked is None else asked
        for one, symbols, others in zip(p.split(strings), x.split(strings), asked.split(strings), strict=True):
            contexts = self.contexts_of(symbols)
            parts = [
                self._at(part, symbols, here, contexts, step * at)
                for at, (part, here) in enumerate(zip(one.split(step, -1), others.split(step, -1), strict=True))
            ]
            found.append(torch.cat(parts, -1))
        return torch.cat(found)

    def _at(self, p: Tensor, x: Tensor, asked: Tensor, contexts: Tensor, first: int) -> Tensor:
        """``at_places`` from ``first`` on, of as many places as p has. contexts: of all places of x."""
        here = slice(first, first + p.shape[-1])
        places = torch.arange(x.shape[-1], device=x.device)
        earlier = places < places[here].unsqueeze(-1)
        symbols = asked.unsqueeze(-1)
        same = symbols == self.symbols.unsqueeze(-2), symbols == x.unsqueeze(-2)
        for length, strength in enumerate(self.strengths):
            context = contexts[..., here, length].unsqueeze(-1)
            alike = (context == self.contexts[..., length].unsqueeze(-2)) & self.real.unsqueeze(-2)
            before = (context == contexts[..., length].unsqueeze(-2)) & earlier
            found = (alike & same[0]).sum(-1) + (before & same[1]).sum(-1)
            p = (found + strength * p) / (alike.sum(-1) + before.sum(-1) + strength)
        return p

    def of_levels(self, p: Tensor, x: Tensor) -> Tensor:
        """On top of probabilities ``(n, tasks, levels)`` of what comes after strings x ``(n, tasks, places)``."""
        contexts, levels = self.contexts_of(F.pad(x, (0, 1))), torch.arange(self.levels, device=x.device)
        known = (self.symbols.unsqueeze(-1) == levels) & self.real.unsqueeze(-1)  # (tasks, J, levels)
        # Products of matrices are exact in float64, under autocast as well.
        known, own = known.double(), (x.unsqueeze(-1) == levels).double()
        here = contexts[..., -1, :]
        for length, strength in enumerate(self.strengths):
            alike = here[..., length].unsqueeze(-1) == self.contexts[..., length]
            before = here[..., length].unsqueeze(-1) == contexts[..., :-1, length]
            found = torch.einsum("...tj,tjk->...tk", alike.double(), known)
            found = (found + torch.einsum("...j,...jk->...k", before.double(), own)).to(p)
            p = (found + strength * p) / (found.sum(-1, keepdim=True) + strength)
        return p


@dataclass(frozen=True)
class _Counting(Draws):
    """``inner`` place by place, given counts on top of the probabilities it would be given.

    state: the symbols so far, the same for all places, as they are decided in order.
    """

    native: ClassVar[bool] = False
    inner: Draws | None = None
    counts: SupportCounts | None = None
    state: dict[str, Any] = field(default_factory=dict)

    def map(self, part: Callable[[Tensor], Tensor]) -> Draws:
        assert self.inner is not None
        return replace(super().map(part), inner=self.inner.map(part))  # type: ignore[call-arg]

    def levels(self, logits: Tensor) -> Tensor:
        assert self.inner is not None
        assert self.counts is not None
        tasks = len(self.counts.symbols)
        x = self.state.get("x", logits.new_zeros(*logits.shape[:-1], 0, dtype=torch.long))
        p = self.counts.of_levels(logits.double().softmax(-1).unflatten(0, (-1, tasks)), x.unflatten(0, (-1, tasks)))
        drawn = self.inner.levels(p.flatten(0, 1).log())
        self.state["x"] = torch.cat([x, drawn.unsqueeze(-1)], -1)
        return drawn


class CountedDensity(DerivedDensity):
    """``base`` with counts of the support and of the string so far on top; see ``SupportCounts``. Exact.

    A neural cache (Grave et al. 2017), whose weights are those of counting. base: a density of sequences ``(1, T)``
    that goes from the first place to the last.
    """

    order: ClassVar[str] = "the order of the sequence"

    def __init__(self, base: SequentialDensity, counts: SupportCounts, validate_args: bool | None = None) -> None:
        self.counts = counts
        super().__init__(base, validate_args)

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        terms = self.base._conditional_log_probs(value)
        if not value.numel():
            return terms
        x = value[..., 0, :].long().reshape(-1, self.tasks, self.event_shape[-1])
        p = self.counts.at_places(terms.reshape(x.shape).exp(), x)
        return p.clamp(min=torch.finfo(p.dtype).tiny).log().view(value.shape)

    def _drawn(self, draws: Draws) -> Tensor:
        return self.base.drawn(_Counting(draws.uniforms, draws.known, inner=draws, counts=self.counts))
