"""The moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average that follows fast at first, see ``newest_share``."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        torch._foreach_lerp_(averaged, current, newest_share(decay, float(count)))

    return update


def newest_share(decay: float, count: float) -> float:
    """Of the newest weights in the average after ``count`` others: 1 - min(decay, (1 + n) / (10 + n))."""
    return 1 - min(decay, (1 + count) / (10 + count))
