"""The naive sampler: a full pass of the network a pixel and channel."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metadensity.likelihoods.levels import invert_cdf
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.pixelcnn import PixelCNN


def sample_naive(
    network: PixelCNN, condition: Conditioning, uniforms: Tensor, known: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Sample with one full pass a pixel and channel: the oracle. See ``sample_by_logits``."""
    return sample_by_logits(lambda pixels: network(pixels, condition), uniforms, known, temperature)


def sample_by_logits(
    logits_of: Callable[[Tensor], Tensor], uniforms: Tensor, known: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Sample with the logits of whole images, ``(samples * tasks, levels, C, *space)``, for each pixel and channel.

    uniforms: ``(samples * tasks, C, *space)``. known: the same shape, int64, -1 where a pixel is to be drawn.
    temperature: what logits are divided by.
    """
    pixels = torch.zeros(uniforms.shape, dtype=torch.long, device=uniforms.device)
    _, channels, *space = uniforms.shape
    for place in itertools.product(*map(range, space)):
        for channel in range(channels):
            index: Any = (slice(None), channel, *place)
            logits = logits_of(pixels).movedim(1, -1)[index]
            pixels[index] = draw_levels(logits, uniforms[index], None if known is None else known[index], temperature)
    return pixels


def draw_levels(logits: Tensor, uniforms: Tensor, known: Tensor | None, temperature: float) -> Tensor:
    drawn = invert_cdf(logits if temperature == 1 else logits.double() / temperature, uniforms)
    return drawn if known is None else torch.where(known >= 0, known, drawn)
