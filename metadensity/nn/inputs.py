"""Pixels as a network sees them: scaled to [-1, 1], with their position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def to_unit_range(pixels: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Integer pixels in [0, levels) as floats in [-1, 1]."""
    return pixels.to(dtype) * (2 / (levels - 1)) - 1


class PixelInput(nn.Module):
    """Images as features: pixels scaled to [-1, 1] with position channels, ``(batch, C + space_dims, *space)``.

    The position channels mark the border as well, where zero padding could pass for a pixel.
    """

    positions: Tensor

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.features = event_shape[0] + len(event_shape) - 1
        self.register_buffer("positions", positions(tuple(event_shape[1:])), persistent=False)

    def forward(self, pixels: Tensor, index: tuple[slice, ...] = ()) -> Tensor:
        """Encode ``(batch, C, *space)`` integers, or only the places at ``index``, slices of all dimensions."""
        x = to_unit_range(pixels[index], self.levels, self.positions.dtype)
        where = self.positions[index[1:]]
        return torch.cat([x, where.expand(len(x), *where.shape)], dim=1)


def positions(space: tuple[int, ...]) -> Tensor:
    """Coordinates in [-1, 1], one channel a dimension: ``(space_dims, *space)``. A dimension of one place is at 0."""
    axes = [torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1) for size in space]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))
