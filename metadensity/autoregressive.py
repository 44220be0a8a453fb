"""Autoregressive densities: p(x | support) = prod_t p(x_t | x_<t, support), in 1, 2 or 3 dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.density import Density
from metadensity.nn.pixelcnn import Condition, PixelCNN
from metadensity.sampling import sample_cached, sample_naive


class AutoregressiveDensity(Density):
    """The density of a network that gives the logits of every pixel from the pixels before it.

    Conditioned once, used many times: the support was encoded into ``condition``. The density reads
    the network's parameters when it is used, so use it before they change.
    """

    def __init__(self, network: PixelCNN, condition: Condition, validate_args: bool | None = None) -> None:
        self.network, self.condition = network, condition
        super().__init__(condition.tasks, network.event_shape, network.levels, validate_args)

    def logits(self, value: Tensor) -> Tensor:
        """Logits ``(*sample, tasks, levels, C, *space)`` of each pixel given its past; raises as ``log_prob``."""
        self.check_value(value)
        logits = self._logits(value.reshape(-1, *self.event_shape))
        return logits.view(*value.shape[: -len(self.event_shape)], *logits.shape[1:])

    def _logits(self, pixels: Tensor) -> Tensor:
        if not len(pixels):  # no tasks or no samples: the network cannot tell which
            return torch.zeros(0, self.levels, *self.event_shape, device=pixels.device)
        logits = self.network(pixels, self.condition)
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

    def _pixel_log_prob(self, value: Tensor) -> Tensor:
        pixels = value.reshape(-1, *self.event_shape)
        return -F.cross_entropy(self._logits(pixels), pixels.long(), reduction="none").view(value.shape)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw with the cached sampler; see ``Density.sample``."""
        device = self.network.input.positions.device
        return self.sample_from(torch.rand(self._extended(sample_shape), generator=generator, device=device))

    @torch.no_grad()
    def sample_from(self, uniforms: Tensor, naive: bool = False) -> Tensor:
        """The images that these uniform numbers in [0, 1) stand for, by inverting each pixel's CDF in turn.

        uniforms: ``(*sample, tasks, C, *space)``. The map is deterministic: equal numbers, equal images.
        naive: run the whole network once a pixel and channel, the slow oracle of the cached sampler.
        """
        expected = (*self.batch_shape, *self.event_shape)
        if tuple(uniforms.shape[-len(expected) :]) != expected:
            raise ValueError(f"uniforms have shape {tuple(uniforms.shape)}; they must end in {expected}.")
        if not uniforms.numel():
            return torch.zeros(uniforms.shape, dtype=torch.long, device=uniforms.device)
        draw = sample_naive if naive else sample_cached
        return draw(self.network, self.condition, uniforms.reshape(-1, *self.event_shape)).view(uniforms.shape)
