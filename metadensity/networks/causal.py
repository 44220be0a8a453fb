"""What every autoregressive network is: features of the strict past of each place, and a likelihood on them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from metadensity.likelihoods.base import Likelihood
from metadensity.networks.conditioning import Conditioning


class CausalNetwork(ABC, nn.Module):
    """A network over ``(C, *space)`` images whose ``head`` is given features of what comes before each place."""

    event_shape: tuple[int, ...]
    levels: int
    head: Likelihood

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it computes."""

    @abstractmethod
    def features(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """Features ``(batch, penultimate, *space)`` of the strict past of every place.

        pixels: ``(samples * tasks, C, *space)`` integers, tasks fastest.
        """

    def forward(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """Logits ``(samples * tasks, levels, C, *space)`` of every channel of every place given all before it."""
        logits: Tensor = self.head(self.features(pixels, condition), pixels)
        return logits

    @abstractmethod
    def attention_weights(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """Where each place looks, ``(samples, tasks, J, *space)``: entries of all supports in order, the null last.

        Raises ValueError for a network without attention.
        """
