"""Any distribution over the levels of a pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.nn.convolution import CONV, CONVOLVE, pointwise
from metadensity.nn.inputs import scale


class CategoricalHead(nn.Module):
    """A categorical distribution over the levels, channels autoregressive within a pixel.

    Channel c sees the features of the pixel's past, and the channels before c of the same pixel
    through weights masked by multiplication. Departure: the PixelCNN splits all its planes into
    channel groups instead; here the trunk sees past pixels alone and the head does the channels,
    so a pixel costs one trunk step whatever its number of channels.
    """

    mask: Tensor

    def __init__(self, features: int, channels: int, levels: int, dims: int) -> None:
        super().__init__()
        self.channels, self.levels, self.dims = channels, levels, dims
        self.hidden = pointwise(features, channels * features, dims)
        self.previous = pointwise(channels, channels * features, dims, bias=False) if channels > 1 else None
        self.logits = CONV[dims](channels * features, channels * levels, 1, groups=channels)
        mask = torch.ones(channels, channels).tril(-1).repeat_interleave(features, 0)
        self.register_buffer("mask", mask[(...,) + (None,) * dims], persistent=False)

    def forward(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Logits ``(batch, levels, C, *space)`` from ``(batch, F, *space)`` features and integer pixels."""
        hidden = self.hidden(F.relu(features))
        if self.previous is not None:
            seen = scale(pixels, self.levels, hidden.dtype)
            hidden = hidden + CONVOLVE[self.dims](seen, self.previous.weight * self.mask)
        return self.logits(F.relu(hidden)).unflatten(1, (self.channels, self.levels)).transpose(1, 2)

    def place(self, features: Tensor, pixels: Tensor, channel: int) -> Tensor:
        """Logits ``(batch, levels)`` of one channel at a place, from features ``(batch, F)``, pixels ``(batch, C)``."""
        width = features.shape[1]
        rows = slice(channel * width, (channel + 1) * width)
        hidden = F.linear(F.relu(features), self.hidden.weight[rows].flatten(1), self.hidden.bias[rows])
        if self.previous is not None and channel:  # what the mask leaves of these rows is the channels before
            seen = scale(pixels[:, :channel], self.levels, hidden.dtype)
            hidden = hidden + F.linear(seen, self.previous.weight[rows, :channel].flatten(1))
        rows = slice(channel * self.levels, (channel + 1) * self.levels)
        return F.linear(F.relu(hidden), self.logits.weight[rows].flatten(1), self.logits.bias[rows])
