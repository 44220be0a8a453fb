"""What every likelihood of a pixel is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.likelihoods.levels import at_least_float32


class Likelihood(ABC, nn.Module):  # in this order, or higher could make no copy that it differentiates through
    """p(pixel | features of its past), channels one after the other: of channel c given those before it.

    A subclass is built from the arguments below and options of its own, each with a default, and gives the logits of
    all levels in two ways: over an image (``forward``, which has the name because a layer of weights may be called
    ``logits``), and at one place, for samplers. They have to agree.

    features: numbers a place is described by. channels, levels: of a pixel. space_dims: number of space dimensions.
    """

    def __init__(self, features: int, channels: int, levels: int, space_dims: int) -> None:
        super().__init__()
        self.features, self.channels, self.levels, self.space_dims = features, channels, levels, space_dims

    @abstractmethod
    def forward(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Logits ``(batch, levels, C, *space)`` from ``(batch, features, *space)`` and integer pixels.

        pixels: ``(batch, C, *space)``; the logits of a channel depend on the channels before it, and on no other.
        """

    @abstractmethod
    def logits_at(self, features: Tensor, pixels: Tensor, channel: int) -> Tensor:
        """Logits ``(batch, levels)`` of one channel at a place, from ``(batch, features)`` and pixels ``(batch, C)``.

        Channels from ``channel`` on may hold anything.
        """

    def log_prob(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Log-probabilities in nats of pixels ``(batch, C, *space)``, in float32 at least, the shape of ``pixels``.

        By default the entries of ``forward``. A likelihood that can do without that table saves its memory here.
        """
        return -F.cross_entropy(at_least_float32(self(features, pixels)), pixels.long(), reduction="none")

    def kernel_weights(self) -> dict[str, Tensor] | None:
        """The weights that the native line sampler takes (see ``Categorical``), or None where it cannot draw this."""
        return None
