"""A PixelCNN over sound that speaks relative to a linear prediction (Hwang et al. 2018, "LP-WaveNet").

Linear prediction knows the spectrum and the loudness, of the support if there is one; what is left to the network are
errors of one scale, whatever the speaker and the microphone.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.likelihoods.base import Likelihood
from metadensity.likelihoods.levels import at_least_float32
from metadensity.likelihoods.logistic_mixture import BOUND
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.causal import GatedLayer
from metadensity.nn.convolution import CONV, is_plain, pointwise
from metadensity.nn.inputs import PixelInput
from metadensity.nn.linear_prediction import Predictor, level_mass

_SPREAD = 0.7  # of the log-scales that components begin with
_GIVEN = 3  # features that linear prediction adds: mean, log-scale, and the log-odds of the uniform part


class PredictedInput(PixelInput):
    """Codes as a network sees them: their errors in units of the scale, that scale, and the codes themselves."""

    def __init__(self, places: int, levels: int) -> None:
        super().__init__((1, places), levels, placed=False)
        self.features = 3

    def relative(self, codes: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> list[Tensor]:
        """The features of places, each of the shape of ``codes``."""
        return [torch.asinh((x - mean) / scale) / 2, (scale.log() + 6) / 2, self.scale(codes).to(x)]


class RelativeLogistics(Likelihood):
    """A mixture of logistics around a linear prediction, in units of its scale, and a uniform part.

    features: the last three of a place are the mean, the log-scale and the log-odds of the uniform part of the
    prediction. Before any training it is what linear prediction says, but for the spread of the components.
    """

    def __init__(self, features: int, levels: int, components: int) -> None:
        super().__init__(features + _GIVEN, 1, levels, 1)
        self.components = components
        self.parameters_of = pointwise(features, 3 * components + 1, 1)
        with torch.no_grad():
            self.parameters_of.weight.zero_()
            self.parameters_of.bias.zero_()
            self.parameters_of.bias[2 * components : -1] = torch.linspace(-_SPREAD, _SPREAD, components)

    def forward(self, features: Tensor, pixels: Tensor) -> Tensor:
        """See ``Likelihood.forward``; these logits are log-probabilities."""
        return self._table(features).unsqueeze(2)

    def logits_at(self, features: Tensor, pixels: Tensor, channel: int) -> Tensor:
        """See ``Likelihood.logits_at``; these logits are log-probabilities."""
        return self._table(features.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, features: Tensor, pixels: Tensor) -> Tensor:
        """See ``Likelihood.log_prob``: without the table."""
        weights, means, scales, uniform = self._mixture(features)
        mass = (weights * level_mass(pixels, means, scales, self.levels)).sum(1, keepdim=True)
        return ((1 - uniform) * mass + uniform / self.levels).log()

    def _mixture(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights, means and scales ``(batch, K, places)``, the uniform part ``(batch, 1, places)``."""
        with torch.autocast(features.device.type, enabled=False):
            features = at_least_float32(features)
            hidden, (mean, log_scale, odds) = features[:, :-_GIVEN], features[:, -_GIVEN:].split(1, 1)
            raw = self.parameters_of(F.elu(hidden))
        logits, means, scales, uniform = raw.split([*[self.components] * 3, 1], 1)
        scale = log_scale.exp()
        wider = (BOUND * torch.tanh(scales / BOUND)).exp()
        return logits.softmax(1), mean + scale * means, scale * wider, torch.sigmoid(odds + uniform)

    def _table(self, features: Tensor) -> Tensor:
        """log p of each level, ``(batch, levels, places)``."""
        weights, means, scales, uniform = self._mixture(features)
        levels = torch.arange(self.levels, device=features.device).view(1, -1, 1)
        mass = torch.zeros(())
        for weight, mean, scale in zip(*(part.split(1, 1) for part in (weights, means, scales)), strict=True):
            mass = mass + weight * level_mass(levels, mean, scale, self.levels)
        return ((1 - uniform) * mass + uniform / self.levels).log()


class PredictedPixelCNN(PixelCNN):
    """A PixelCNN over sequences ``(1, places)`` of mu-law codes, relative to ``Conditioning.predictor``."""

    input: PredictedInput

    def __init__(self, places: int, levels: int, *, penultimate: int, components: int, **sizes: Any) -> None:
        super().__init__(
            (1, places),
            levels,
            placed=False,
            input=PredictedInput(places, levels),
            head=RelativeLogistics(penultimate, levels, components),
            penultimate=penultimate,
            **sizes,
        )

    @property
    def is_plain(self) -> bool:
        """See ``PixelCNN.is_plain``."""
        return (
            is_plain(self.input, PredictedInput)
            and all(cast(GatedLayer, layer).is_plain for layer in self.layers)
            and is_plain(self.penult, CONV[1])
        )

    def inputs(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """See ``PixelCNN.inputs``."""
        codes = by_task(pixels, condition)
        return self._relative(codes, *predictor_of(condition)(codes))

    def _relative(self, codes: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return torch.stack(self.input.relative(codes, x, mean, scale), -2).flatten(0, 1)

    def features(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """See ``CausalNetwork.features``; the last three are those that ``RelativeLogistics`` is given."""
        codes, predictor = by_task(pixels, condition), predictor_of(condition)
        x, mean, scale = predictor(codes)
        given = torch.stack(given_by(predictor, mean, scale), -2).flatten(0, 1)
        hidden = self.features_of(self._relative(codes, x, mean, scale), pixels, condition)
        return torch.cat([hidden.to(given), given], 1)


def given_by(predictor: Predictor, mean: Tensor, scale: Tensor) -> list[Tensor]:
    """What linear prediction tells the likelihood of places, each of the shape of ``mean``."""
    return [mean, scale.log(), torch.logit(predictor.uniform).expand_as(mean)]


def predictor_of(condition: Conditioning) -> Predictor:
    """The predictor that there has to be."""
    if condition.predictor is None:
        raise ValueError("This network speaks relative to a linear prediction, and the conditioning has none.")
    return condition.predictor


def by_task(pixels: Tensor, condition: Conditioning) -> Tensor:
    """Codes ``(samples * tasks, 1, places)``, tasks fastest, as ``(samples, tasks, places)``."""
    return pixels[:, 0].unflatten(0, (-1, condition.tasks))
