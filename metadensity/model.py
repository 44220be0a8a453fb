"""What every few-shot model is: a module that turns a support set into a density."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from metadensity.checks import is_whole, require_integer_pixels, require_levels
from metadensity.density import Density


class FewShotModel(nn.Module):
    """``density = model(support)``: conditioned once, used many times.

    event_shape: ``(C, *space)`` with one, two or three space dimensions. levels: number of pixel values.
    config: the constructor arguments, JSON values only; ``metadensity.save`` writes them beside the weights.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__()
        self.provenance: dict[str, Any] = {}
        try:
            space = tuple(operator.index(size) for size in event_shape)
        except TypeError:  # not a sequence, or not of whole numbers
            space = ()
        if not 2 <= len(space) <= 4 or min(space) < 1:
            raise ValueError(
                f"event_shape={event_shape}; it must be (channels, *space) with one to three space dimensions of at "
                "least one place each, for example (1, 28, 28)."
            )
        if not is_whole(levels) or levels < 2:
            raise ValueError(
                f"levels={levels!r}; a pixel needs at least 2 levels (2 for binary, 256 for 8-bit images)."
            )
        self.event_shape: tuple[int, ...] = space
        self.levels = int(levels)
        self.config: dict[str, Any] = {"event_shape": list(space), "levels": self.levels, **options}

    def forward(self, support: Tensor) -> Density:
        """The density of each task given its support ``(S, tasks, C, *space)``, integers in [0, levels). S may be 0.

        Raises TypeError for pixels that are no integers, ValueError for a wrong shape or a level out of range.
        """
        self.check_support(support)
        return self.condition(support)

    def check_support(self, support: Tensor) -> None:
        """Raise as ``forward`` does unless this is a support for this model."""
        require_integer_pixels("support", support)
        if support.ndim != len(self.event_shape) + 2 or tuple(support.shape[2:]) != self.event_shape:
            raise ValueError(
                f"support has shape {tuple(support.shape)}; this model needs (shots, tasks, channels, *space) = "
                f"(shots, tasks, {', '.join(map(str, self.event_shape))})."
            )
        require_levels("support", support, self.levels)

    @abstractmethod
    def condition(self, support: Tensor) -> Density:
        """The density given a support that has been checked."""
