"""The density of a feed-forward NADE."""

from __future__ import annotations

import torch
from torch import Tensor

from metadensity.densities.pixelcnn import RasterDensity
from metadensity.drawing import Draws
from metadensity.likelihoods.levels import levels_of_images
from metadensity.networks.captured import CapturedTensors
from metadensity.networks.nade import NADENetwork


class NADEDensity(RasterDensity):
    """The density of a ``NADENetwork``; bias: of the hidden layer, ``(tasks, hidden)``."""

    def __init__(self, network: NADENetwork, bias: Tensor, validate_args: bool | None = None) -> None:
        self.network, self.bias = network, bias
        self.captured = CapturedTensors(network)
        super().__init__(len(bias), network.event_shape, network.levels, validate_args)

    def _network_logits(self, pixels: Tensor) -> Tensor:
        with self.captured.restored():
            logits: Tensor = self.network(pixels, self.bias)
        return logits

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        return levels_of_images(self._level_log_probs(value), value, len(self.event_shape) - 1)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.bias.device

    def _attention_weights(self, value: Tensor) -> Tensor:
        return super().attention_weights(value)  # there are none

    def _sample_cached(self, draws: Draws) -> Tensor:
        with self.captured.restored():
            return self.network.draw(self.bias, draws)
