"""The naive sampler: a full pass of the network a pixel and channel."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metadensity.drawing import Draws
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.pixelcnn import PixelCNN


def sample_naive(network: PixelCNN, condition: Conditioning, draws: Draws) -> Tensor:
    """Sample with one full pass a pixel and channel: the oracle. See ``sample_by_logits``."""
    return sample_by_logits(lambda pixels: network(pixels, condition), draws)


def sample_by_logits(logits_of: Callable[[Tensor], Tensor], draws: Draws, dims: int | None = None) -> Tensor:
    """Sample with the logits of whole images, ``(samples * tasks, levels, C, *space)``, for each pixel and channel.

    draws: of ``(samples * tasks, C, *space)``. dims: so many space dimensions are gone through place by place, and what
    lies along the others is drawn at once, of logits that see nothing of it; None: all are gone through.
    """
    pixels = torch.zeros(draws.uniforms.shape, dtype=torch.long, device=draws.uniforms.device)
    _, channels, *space = pixels.shape
    for place in itertools.product(*map(range, space[:dims])):
        for channel in range(channels):
            index: Any = (slice(None), channel, *place)
            logits = logits_of(pixels).movedim(1, -1)[index]
            pixels[index] = draws.map(operator.itemgetter(index)).levels(logits)
    return pixels
