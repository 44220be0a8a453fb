"""The posterior predictive of the templates task: a mixture of noisy binary images with known weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.density import FactorisedDensity

_NUMBERS_AT_A_TIME = 2**22  # of float64: 32 MiB


class TemplateDensity(FactorisedDensity):
    """p(x) = sum_k w_k prod_t p(x_t | component k), where a pixel differs from component k's with probability ``flip``.

    components: ``(components, C, *space)``, pixels 0 and 1, the same for all tasks.
    log_weights: ``(tasks, components)``, normalised over the components.

    All in float64 and exact: log-probabilities come as float64.
    """

    def __init__(self, components: Tensor, log_weights: Tensor, flip: float, validate_args: bool | None = None) -> None:
        self.components = components.flatten(1).to(log_weights)
        self.log_weights, self.flip = log_weights, flip
        super().__init__(len(log_weights), components.shape[1:], 2, validate_args)

    def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        """One product of matrices, without the pixels' terms."""
        pixels = value.flatten(-len(self.event_shape))
        return (noise_log_prob(pixels, self.components, self.flip) + self.log_weights).logsumexp(-1)

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        """The conditionals of the mixture: differences of its running totals in raster order, channels fastest."""
        dims = len(self.event_shape) - 1
        pixels = _raster(value, dims).to(self.components).reshape(-1, self.event_shape.numel())
        components = _raster(self.components.view(-1, *self.event_shape), dims)
        weights = self.log_weights.expand(*value.shape[: -dims - 1], -1).reshape(-1, len(components))
        rows = max(1, _NUMBERS_AT_A_TIME // components.numel())
        parts = zip(pixels.split(rows), weights.split(rows), strict=True)
        terms = torch.cat([self._conditionals(part, components, weight) for part, weight in parts])
        channels, *space = self.event_shape
        return terms.view(*value.shape[: -dims - 1], *space, channels).movedim(-1, -dims - 1)

    def _conditionals(self, pixels: Tensor, components: Tensor, log_weights: Tensor) -> Tensor:
        """``(n, dims)`` from pixels ``(n, dims)``, components ``(k, dims)`` and weights ``(n, k)``."""
        flips = (pixels[:, None] - components).abs()
        terms = math.log1p(-self.flip) + flips * _log_odds(self.flip)
        running = (log_weights[..., None] + terms.cumsum(-1)).logsumexp(1)
        return F.pad(running, (1, 0)).diff(dim=-1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        shape, device = self._extended(sample_shape), self.log_weights.device
        count = math.prod(sample_shape)
        uniforms = torch.rand(self.tasks, count, generator=generator, device=device, dtype=torch.float64)
        cdf = self.log_weights.exp().cumsum(-1)
        component = torch.searchsorted(cdf / cdf[:, -1:], uniforms, right=True)
        noise = torch.rand(
            count, self.tasks, len(self.components[0]), generator=generator, device=device, dtype=torch.float64
        )
        return (self.components[component.T].bool() ^ (noise < self.flip)).long().view(shape)


def noise_log_prob(pixels: Tensor, components: Tensor, flip: float) -> Tensor:
    """log p(pixels | component) in nats, ``(..., k)``, of binary pixels ``(..., dims)`` given ``(k, dims)``.

    The number of flipped pixels comes by one product of matrices, whose sums of ones are exact in floating point.
    """
    pixels = pixels.to(components)
    flips = pixels.sum(-1, keepdim=True) + components.sum(-1) - 2 * (pixels @ components.T)
    return components.shape[-1] * math.log1p(-flip) + flips * _log_odds(flip)


def _log_odds(flip: float) -> float:
    return math.log(flip) - math.log1p(-flip)


def _raster(x: Tensor, dims: int) -> Tensor:
    """``(..., C, *space)`` as ``(..., sites)`` in the order of generation."""
    return x.movedim(-dims - 1, -1).flatten(-dims - 1)
