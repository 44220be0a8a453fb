"""Dropout that only a loss turns on: a model that is asked for a density has none, in training mode as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_STEPS = 256  # a draw is one byte


class Dropout(nn.Module):
    """Features set to zero with probability ``rate`` (Srivastava et al. 2014), the others scaled up by as much.

    It happens within ``dropping`` alone. torch's own goes by the training mode, which a model is in from the start, so
    that its log-probabilities would be drawn; and it draws from the global generator. rate: in [0, 1), taken to the
    nearest of 256 steps.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.steps = min(_STEPS - 1, round(rate * _STEPS))
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Features of any shape."""
        if self.generator is None or not self.steps:
            return x
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
        drawn = words.random_(-(2**63), None, generator=self.generator).view(torch.uint8)[: x.numel()]
        return x * (drawn >= self.steps).to(x.dtype).mul_(_STEPS / (_STEPS - self.steps)).view(x.shape)


@contextmanager
def dropping(model: nn.Module, generator: torch.Generator | None) -> Iterator[None]:
    """Within this, the dropout of ``model`` draws from ``generator``; None: it does nothing."""
    parts = [part for part in model.modules() if isinstance(part, Dropout)]
    for part in parts:
        part.generator = generator
    try:
        yield
    finally:
        for part in parts:
            part.generator = None
