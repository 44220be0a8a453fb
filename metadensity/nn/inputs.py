"""Pixels as a network sees them: scaled to [-1, 1], with their position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.checks import real_places

LEAST_DEVIATION = 0.02  # of pixels in [-1, 1]: a channel that hardly changes is not blown up further


def to_unit_range(pixels: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Integer pixels in [0, levels) as floats in [-1, 1]."""
    return pixels.to(dtype) * (2 / (levels - 1)) - 1


class PixelInput(nn.Module):
    """Images as features: pixels scaled to [-1, 1] with position channels, ``(batch, C + space_dims, *space)``.

    The position channels mark the border as well, where zero padding could pass for a pixel. placed: False has ones in
    their place, which mark the border alone: what a network makes of a place does not depend on where it lies, nor on
    the number of places.
    """

    positions: Tensor

    def __init__(self, event_shape: Sequence[int], levels: int, placed: bool = True) -> None:
        super().__init__()
        self.levels = levels
        self.features = event_shape[0] + len(event_shape) - 1
        where = positions(tuple(event_shape[1:]))
        self.register_buffer("positions", where if placed else torch.ones_like(where), persistent=False)

    def forward(self, pixels: Tensor, index: tuple[slice, ...] = ()) -> Tensor:
        """Encode ``(batch, C, *space)`` integers, or only the places at ``index``, slices of all dimensions."""
        x = self.scale(pixels[index])
        where = self.positions[index[1:]]
        return torch.cat([x, where.expand(len(x), *where.shape)], dim=1)

    def scale(self, pixels: Tensor) -> Tensor:
        """Integers ``(batch, C, *space)`` as floats."""
        return to_unit_range(pixels, self.levels, self.positions.dtype)


class SupportInput(PixelInput):
    """``PixelInput`` of support images whose channels have mean 0 and deviation 1 over the data.

    Then little ink on much paper, dark or light, strong or faint, looks alike to the layers that follow. Until it has
    seen data (``look_at``) pixels are in [-1, 1] as they are.
    """

    mean: Tensor
    deviation: Tensor
    seen: Tensor

    def __init__(self, event_shape: Sequence[int], levels: int, placed: bool = True) -> None:
        super().__init__(event_shape, levels, placed)
        shape = (event_shape[0], *[1] * len(event_shape[1:]))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))
        self.register_buffer("seen", torch.tensor(False))

    @torch.no_grad()
    def look_at(self, images: Tensor, lengths: Tensor | None = None) -> None:
        """Take mean and deviation of each channel from ``images`` ``(count, C, *space)``, integers in [0, levels).

        lengths: of sequences, ``(count,)``: how many of the first places of each are real; others do not count.
        """
        channels = to_unit_range(images, self.levels, torch.float64).transpose(0, 1).flatten(1)
        if lengths is not None:
            real = real_places(lengths, images.shape[-1]).flatten()
            channels = channels[:, real] if bool(real.any()) else channels
        self.mean.copy_(channels.mean(1).view_as(self.mean))
        self.deviation.copy_(channels.std(1, correction=0).clamp(min=LEAST_DEVIATION).view_as(self.deviation))
        self.seen.fill_(True)

    def scale(self, pixels: Tensor) -> Tensor:
        """Integers ``(batch, C, *space)`` as centred and scaled floats."""
        return (super().scale(pixels) - self.mean) / self.deviation


def positions(space: tuple[int, ...]) -> Tensor:
    """Coordinates in [-1, 1], one channel a dimension: ``(space_dims, *space)``. A dimension of one place is at 0."""
    axes = [torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1) for size in space]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))
