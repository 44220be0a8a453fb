"""Gated PixelCNN that never looks at the support: the baseline without conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.model import FewShotModel
from metadensity.networks.config import PixelCNNConfig
from metadensity.networks.pixelcnn import PixelCNN


class UnconditionalPixelCNN(FewShotModel, options=[PixelCNNConfig]):
    """A gated PixelCNN (van den Oord et al. 2016) of all tasks together; the same density for every support.

    Options: see ``PixelCNNConfig``.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__(event_shape, levels)
        sizes = self.take(PixelCNNConfig, options)
        self.network = PixelCNN(self.event_shape, levels, **sizes.network)

    def condition(self, support: Tensor) -> PixelCNNDensity:
        """The same for every support."""
        return PixelCNNDensity(self.network, self.network.conditioning(support.shape[1]))
