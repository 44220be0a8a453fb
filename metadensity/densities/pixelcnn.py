"""Autoregressive densities: p(x | support) = prod_t p(x_t | x_<t, support), in 1, 2 or 3 dimensions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor

from metadensity.density import SequentialDensity
from metadensity.drawing import Draws
from metadensity.likelihoods.levels import at_least_float32
from metadensity.networks.captured import CapturedTensors
from metadensity.networks.causal import CausalNetwork
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.networks.predicted import PredictedPixelCNN
from metadensity.sampling.cached import sample_cached
from metadensity.sampling.naive import sample_by_logits
from metadensity.sampling.predicted import sample_predicted

Network = TypeVar("Network", bound=CausalNetwork)


class RasterDensity(SequentialDensity):
    """A density that gives the logits of every pixel from those before it in raster order, and draws them so.

    One network, several whose conditionals are averaged, or one with parameters of its own for each task: what they
    have in common is that the logits are those of the density's conditionals.
    """

    @property
    def draws_in_step(self) -> bool:
        """Whether its cached sampler decides a pixel of all images before the next."""
        return True

    def _first_to_last(self) -> bool:
        return True

    def logits(self, value: Tensor) -> Tensor:
        """Logits ``(*sample, tasks, levels, C, *space)`` of each pixel given its past; raises as ``log_prob``."""
        self.check_value(value)
        logits = self._logits(value.reshape(-1, *self.event_shape))
        return logits.view(*value.shape[: -len(self.event_shape)], *logits.shape[1:])

    def _logits(self, pixels: Tensor) -> Tensor:
        """Logits ``(samples * tasks, levels, C, *space)`` of ``(samples * tasks, C, *space)``, tasks fastest."""
        if not len(pixels):  # no tasks or no samples: the network cannot tell which
            return torch.zeros(0, self.levels, *self.event_shape, device=pixels.device)
        logits = self._network_logits(pixels)
        return at_least_float32(logits)

    @abstractmethod
    def _network_logits(self, pixels: Tensor) -> Tensor:
        """``_logits`` of one image at least, as the network gives them."""

    def _level_log_probs(self, value: Tensor) -> Tensor:
        logits = self._logits(value.reshape(-1, *self.event_shape))
        return logits.log_softmax(1).view(*value.shape[: -len(self.event_shape)], *logits.shape[1:])

    def attention_weights(self, value: Tensor) -> Tensor:
        """See ``SequentialDensity.attention_weights``."""
        if not self.has_attention:
            return super().attention_weights(value)
        self.check_value(value)
        return self._attention_weights(value)

    @abstractmethod
    def _attention_weights(self, value: Tensor) -> Tensor:
        """``attention_weights`` of a value that has been checked, where there are some."""

    @torch.no_grad()
    def sample_from_uniforms(
        self, uniforms: Tensor, naive: bool = False, known: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        """See ``SequentialDensity.sample_from_uniforms``; with the cached sampler.

        naive: run the whole network once a pixel and channel, the slow oracle of the cached sampler.
        """
        return self.drawn(self._draws(uniforms, known, temperature), naive)

    def _drawn(self, draws: Draws, naive: bool = False) -> Tensor:
        flat = draws.map(lambda part: part.reshape(-1, *self.event_shape))
        images = sample_by_logits(self._logits, flat) if naive else self._sample_cached(flat)
        return images.view(draws.uniforms.shape)

    @abstractmethod
    def _sample_cached(self, draws: Draws) -> Tensor:
        """Draw ``(samples * tasks, C, *space)``, tasks fastest, with nothing computed twice."""


class NetworkDensity(RasterDensity, Generic[Network]):
    """The density of a network that gives the logits of every pixel from the pixels before it.

    Conditioned once, used many times: the support was encoded into ``condition``. It is the density of the parameters
    that the network has now, see ``CapturedTensors``.
    """

    def __init__(self, network: Network, condition: Conditioning, validate_args: bool | None = None) -> None:
        self.network, self.condition = network, condition
        self.captured = CapturedTensors(network)
        super().__init__(condition.tasks, network.event_shape, network.levels, validate_args)

    def _network_logits(self, pixels: Tensor) -> Tensor:
        with self.captured.restored():
            logits: Tensor = self.network(pixels, self.condition)
        return logits

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        pixels = value.reshape(-1, *self.event_shape)
        if not len(pixels):  # no tasks or no samples: the network cannot tell which
            return torch.zeros(value.shape, device=value.device)
        with self.captured.restored():
            terms = self.network.head.log_prob(self.network.features(pixels, self.condition), pixels)
        return terms.view(value.shape)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.network.device

    @property
    def has_attention(self) -> bool:
        """See ``SequentialDensity.has_attention``."""
        return self.condition.memory is not None

    def _attention_weights(self, value: Tensor) -> Tensor:
        with self.captured.restored():
            weights = self.network.attention_weights(value.reshape(-1, *self.event_shape), self.condition)
        return weights.view(*value.shape[: -len(self.event_shape)], *weights.shape[2:])


class PixelCNNDensity(NetworkDensity[PixelCNN]):
    """The density of a gated PixelCNN."""

    @property
    def draws_in_step(self) -> bool:
        """See ``RasterDensity.draws_in_step``: frames whose pixels are independent are drawn at once."""
        return not self.network.frame_independent

    def _sample_cached(self, draws: Draws) -> Tensor:
        with self.captured.restored():
            return sample_cached(self.network, self.condition, draws)


class PredictedDensity(NetworkDensity[PredictedPixelCNN]):
    """The density of a PixelCNN that speaks relative to a linear prediction."""

    def _sample_cached(self, draws: Draws) -> Tensor:
        with self.captured.restored():
            return sample_predicted(self.network, self.condition, draws)
