"""Conditional PixelCNN: the support acts through one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.model import FewShotModel
from metadensity.networks.config import ConditionalConfig
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.encoders import SupportVectorEncoder


class ConditionalPixelCNN(FewShotModel, options=[ConditionalConfig]):
    """Gated PixelCNN whose gates are biased by f(s), one vector of the support (Reed et al. 2018, section 3.1).

    The defaults are the paper's Omniglot sizes. Options: see ``ConditionalConfig``.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__(event_shape, levels)
        sizes = self.take(ConditionalConfig, options)
        self.encoder = SupportVectorEncoder(self.event_shape, levels, sizes.planes, sizes.context, sizes.support_norm)
        self.network = PixelCNN(self.event_shape, levels, **sizes.network)

    def condition(self, support: Tensor) -> PixelCNNDensity:
        """Encode the support into f(s)."""
        return PixelCNNDensity(self.network, self.network.conditioning(support.shape[1], self.encoder(support)))
