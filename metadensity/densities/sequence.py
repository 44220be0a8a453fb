"""Sequences of any length up to the most there are places for, as one density: the end is a level of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from metadensity.density import DerivedDensity, SequentialDensity
from metadensity.drawing import Draws


def after_an_end(symbols: Tensor, end: int) -> Tensor:
    """Which places ``(..., T)`` come after an end."""
    ends = symbols == end
    return (ends.cumsum(-1) - ends.long()) > 0


@dataclass(frozen=True)
class _Ending(Draws):
    """``inner`` place by place, where all of the probability is that of ``end`` once it came.

    state: the next place, and which sequences have ended; the same for all places, as they are decided in order.
    """

    native: ClassVar[bool] = False
    inner: Draws | None = None
    end: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    def map(self, part: Callable[[Tensor], Tensor]) -> Draws:
        assert self.inner is not None
        return replace(super().map(part), inner=self.inner.map(part))  # type: ignore[call-arg]

    def levels(self, logits: Tensor) -> Tensor:
        assert self.inner is not None
        if self.state["place"] == 0:  # of the first task, or of the next, where each is gone through for itself
            self.state["ended"] = torch.zeros(logits.shape[:-1], dtype=torch.bool, device=logits.device)
        certain = torch.full_like(logits, -torch.inf)
        certain[..., self.end] = 0
        drawn = self.inner.levels(torch.where(self.state["ended"].unsqueeze(-1), certain, logits))
        self.state["ended"] = self.state["ended"] | (drawn == self.end)
        self.state["place"] = (self.state["place"] + 1) % self.state["places"]
        return drawn


class SequenceDensity(DerivedDensity):
    """The density of ``base`` over strings: once a place holds the level ``end``, all later places do, at no cost.

    A string of n symbols stands in the first n of T places and ``end`` in all others, so strings of up to T symbols
    are told apart by their content alone; one of T symbols has no room for an end. After the end, ``end`` has
    probability one and every other level none (log-probability -inf): the probabilities of all strings, and those of
    all arrays, sum to one.

    base: a density of sequences ``(1, T)`` that goes from the first place to the last. end: one of its levels.
    Raises ValueError for other bases, and for an end that is no level.
    """

    order: ClassVar[str] = "the order of the sequence"

    def __init__(self, base: SequentialDensity, end: int, validate_args: bool | None = None) -> None:
        if len(base.event_shape) != 2 or base.event_shape[0] != 1 or not base._first_to_last():
            raise ValueError(
                f"base has event_shape={tuple(base.event_shape)}; strings are (1, places), in a density that goes from "
                "the first place to the last."
            )
        if not 0 <= end < base.levels:
            raise ValueError(f"end={end}; it must be one of the levels 0 to {base.levels - 1}.")
        self.end = end
        super().__init__(base, validate_args)

    def lengths(self, value: Tensor) -> Tensor:
        """Places that are counted, ``(*sample, tasks)`` int64: the symbols, and the end where there is one."""
        return (~after_an_end(value, self.end)).sum((-2, -1))

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        terms, after = self.base._conditional_log_probs(value), after_an_end(value, self.end)
        terms = torch.where(after, 0.0, terms)
        return torch.where(after & (value != self.end), -torch.inf, terms)

    def _drawn(self, draws: Draws) -> Tensor:
        """Known pixels after an end are kept as they are given."""
        if not draws.native:  # what decides must be told the probability of each place, those after an end too
            state = {"place": 0, "places": self.event_shape[-1]}
            ending = _Ending(draws.uniforms, draws.known, inner=draws, end=self.end, state=state)
            return self.base.drawn(ending)
        drawn = self.base.drawn(draws)
        ended = torch.where(after_an_end(drawn, self.end), self.end, drawn)
        return ended if draws.known is None else torch.where(draws.known >= 0, draws.known, ended)
