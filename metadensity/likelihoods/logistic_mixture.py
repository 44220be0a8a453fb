"""The discretised mixture of logistics of PixelCNN++ (Salimans et al. 2017, sections 2.1 and 2.2), exact in the tails.

Levels stand for equal intervals of [-1, 1], the first and the last one reaching on to minus and plus infinity. A
component gives a level the mass of a logistic distribution over its interval, sigmoid(b) - sigmoid(a) with a < b, which
is also sigmoid(b) sigmoid(-a) (1 - exp(a - b)): a product whose logarithm never cancels, so that no case of the tails
needs an approximation (departure: PixelCNN++ falls back on the density in the middle of the interval).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.likelihoods.base import Likelihood
from metadensity.likelihoods.levels import at_least_float32
from metadensity.nn.convolution import CONV, is_plain, pointwise
from metadensity.nn.inputs import to_unit_range

BOUND = 9.0
"""Log-scales lie in (-BOUND, BOUND). Departure: PixelCNN++ cuts them off at -7, where a level of 256 in the middle of
its interval costs 0.03 nats: too much for a model that could copy. At -9 it costs 1e-13; and unlike a cut the smooth
bound leaves a gradient."""

COMPONENTS = 10
"""As in PixelCNN++."""


@dataclass(frozen=True)
class Mixture:
    """Parameters of a batch of mixtures over the C channels of a pixel, K components each.

    logits ``(batch, K, *space)``; means, log_scales ``(batch, K, C, *space)`` in units of the range [-1, 1];
    coefficients ``(batch, K, C (C - 1) / 2, *space)`` in [-1, 1]: of channel 0 in the mean of 1, then of 0 and 1
    in that of 2, and so on.
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor

    @staticmethod
    def width(channels: int, components: int) -> int:
        """Numbers a place."""
        return components * (1 + 2 * channels + channels * (channels - 1) // 2)

    @classmethod
    def of(cls, raw: Tensor, channels: int, components: int) -> Mixture:
        """From a network's outputs ``(batch, width, *space)``."""
        pairs = channels * (channels - 1) // 2
        sizes = [components, components * channels, components * channels, components * pairs]
        logits, *rest = raw.split(sizes, 1)
        means, scales, coefficients = (
            part.unflatten(1, (components, count))
            for part, count in zip(rest, (channels, channels, pairs), strict=True)
        )
        return cls(logits, means, BOUND * torch.tanh(scales / BOUND), torch.tanh(coefficients))

    def centres(self, pixels: Tensor, channel: int) -> Tensor:
        """Means of one channel ``(batch, K, *space)`` given the channels before it, ``pixels`` scaled to [-1, 1]."""
        mean, first = self.means[:, :, channel], channel * (channel - 1) // 2
        for j in range(channel):
            mean = mean + self.coefficients[:, :, first + j] * pixels[:, None, j]
        return mean


def log_mass(levels: Tensor, centres: Tensor, log_scales: Tensor, count: int) -> Tensor:
    """Log of the mass that logistic distributions give to levels, of ``count`` there are; the arguments broadcast.

    levels: integers, or floats that hold them. Sums to one over the levels whatever the centre and the scale.
    """
    width, x = 2 / count, levels.to(centres.dtype)
    sharpness = torch.exp(-log_scales)
    low, high = ((edge * width - 1 - centres) * sharpness for edge in (x, x + 1))
    below = torch.where(x > 0, F.logsigmoid(-low), 0.0)
    above = torch.where(x < count - 1, F.logsigmoid(high), 0.0)
    inner = torch.where((x > 0) & (x < count - 1), torch.log(-torch.expm1(-width * sharpness)), 0.0)
    return below + above + inner


class LogisticMixture(Likelihood):
    """The discretised mixture of logistics of PixelCNN++, for grey levels and colour.

    The components are of the whole pixel, all channels together.

    p(x) = sum_k pi_k prod_c p_k(x_c | x_<c), where the mean of channel c is linear in the channels before it. As a
    product over channels, which is what a density needs, the term of channel c is the mixture of the p_k(x_c | x_<c)
    with weights that the channels before c have updated by Bayes' rule; the product of the terms is p(x).
    Departure: the interval of a level is 2 / levels wide, so that all are equal; in PixelCNN++ levels are
    2 / (levels - 1) apart, which says the same at another scale.
    The features go through an ELU, as in PixelCNN++: the first steps push all means and scales one way, and behind
    rectifiers most features may then be off at every place, for good.
    """

    def __init__(
        self, features: int, channels: int, levels: int, space_dims: int, components: int = COMPONENTS
    ) -> None:
        super().__init__(features, channels, levels, space_dims)
        self.components = components
        self.parameters_of = pointwise(features, Mixture.width(channels, components), space_dims)
        with torch.no_grad():  # components spread over the range, wide enough that no level is out of reach of any
            bias, means = self.parameters_of.bias, components * channels
            middles = (torch.arange(components) + 0.5) * (2 / components) - 1
            bias[components : components + means] += middles.repeat_interleave(channels)
            bias[components + means : components + 2 * means] -= 1

    def forward(self, features: Tensor, pixels: Tensor) -> Tensor:
        """See ``Likelihood.forward``; these logits are log-probabilities."""
        mixture = self._mixture(features)
        return torch.stack([self._table(mixture, pixels, channel) for channel in range(self.channels)], 2)

    def log_prob(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Log-probabilities of the pixels themselves, ``(batch, C, *space)``: ``forward`` without the other levels."""
        mixture = self._mixture(features)
        weights, terms = mixture.logits.log_softmax(1), []
        for channel in range(self.channels):
            joint = weights + self._component(mixture, pixels, pixels[:, None, channel], channel)
            terms.append(joint.logsumexp(1))
            weights = joint - terms[-1].unsqueeze(1)
        return torch.stack(terms, 1)

    def logits_at(self, features: Tensor, pixels: Tensor, channel: int) -> Tensor:
        """See ``Likelihood.logits_at``; these logits are log-probabilities."""
        return self._table(self._mixture(features), pixels, channel)

    def _mixture(self, features: Tensor) -> Mixture:
        """The parameters, in float32 at least: they are divided by scales, which magnifies their rounding."""
        with torch.autocast(features.device.type, enabled=False):
            hidden = F.elu(at_least_float32(features))
            if features.ndim == 2 and is_plain(self.parameters_of, CONV[self.space_dims]):
                raw = F.linear(hidden, self.parameters_of.weight.flatten(1), self.parameters_of.bias)
            elif features.ndim == 2:
                raw = self.parameters_of(hidden[(..., *[None] * self.space_dims)]).flatten(1)
            else:
                raw = self.parameters_of(hidden)
        return Mixture.of(raw, self.channels, self.components)

    def _component(self, mixture: Mixture, pixels: Tensor, levels: Tensor, channel: int) -> Tensor:
        """log p_k(level | channels before), ``(batch, K, *space)``, of ``levels`` ``(batch, 1, *space)``."""
        scaled = to_unit_range(pixels, self.levels, mixture.means.dtype)
        return log_mass(levels, mixture.centres(scaled, channel), mixture.log_scales[:, :, channel], self.levels)

    def _table(self, mixture: Mixture, pixels: Tensor, channel: int) -> Tensor:
        """log p(level | channels before), ``(batch, levels, *space)``."""
        weights = mixture.logits
        for before in range(channel):
            weights = weights + self._component(mixture, pixels, pixels[:, None, before], before)
        weights = weights.log_softmax(1)
        levels = torch.arange(self.levels, device=pixels.device).view(1, -1, *[1] * (pixels.ndim - 2))
        scaled = to_unit_range(pixels, self.levels, mixture.means.dtype)
        centres, scales = mixture.centres(scaled, channel), mixture.log_scales[:, :, channel]
        # All levels of all components at once would take K times the memory of what is returned.
        table: Tensor | None = None
        for k in range(self.components):
            centre, log_scale, weight = (part[:, k, None] for part in (centres, scales, weights))
            term = weight + log_mass(levels, centre, log_scale, self.levels)
            table = term if table is None else torch.logaddexp(table, term)
        assert table is not None
        return table
