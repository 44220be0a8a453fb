"""Linear prediction: the exact baseline for sound, fitted to training data and to the support by least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.checks import real_places, require_sizes
from metadensity.densities.linear_prediction import LinearPredictionDensity, in_order
from metadensity.episode import EpisodeSource
from metadensity.likelihoods.levels import at_least_float32
from metadensity.model import FewShotModel
from metadensity.nn.linear_prediction import WINDOW, Predictor, amplitudes

LOOKED_AT = 256  # sequences of the training data
# Amplitude from which on least squares weighs loud and soft places alike. The best of 1e-3, 2e-3, 5e-3, 1e-2 and 2e-2
# on validation speakers of ``commands``: 4.48, 4.44, 4.41, 4.38 and 4.37 bits a sample without support.
QUIET = 2e-2
RIDGE = 1e-9  # of the mean square, so that a silent support has a solution


class LinearPrediction(FewShotModel):
    """Each amplitude from the ``taps`` before it; the coefficients solve the normal equations of data and support.

    Levels are mu-law codes, in raster order. The moments of the training data, which a trainer lets it look at
    (``initialise``), count for exp(log_trust) places, those of the support for one each. Least squares weighs a place
    by the inverse square of the loudness around it. Scale, its beginning and floor, a uniform part, and the trust are
    learned: five numbers.

    taps: places before each one that it is predicted from.
    """

    any_places = True

    def __init__(self, event_shape: Sequence[int], levels: int, *, taps: int = 16) -> None:
        super().__init__(event_shape, levels)
        require_sizes(taps=taps)
        self.taps = int(taps)
        self.log_gain = nn.Parameter(torch.tensor(math.log(0.6)))
        self.log_floor = nn.Parameter(torch.tensor(math.log(1e-4)))
        self.log_start = nn.Parameter(torch.tensor(math.log(1e-2)))
        self.uniform_logit = nn.Parameter(torch.tensor(math.log(0.002)))
        self.log_trust = nn.Parameter(torch.tensor(math.log(1e4)))
        self.moments: Tensor
        self.places: Tensor
        self.register_buffer("moments", torch.eye(self.taps + 1))  # those of white noise, until data are seen
        self.register_buffer("places", torch.zeros((), dtype=torch.int64))  # how many they are of

    def condition(self, support: Tensor) -> LinearPredictionDensity:
        """Solve for the coefficients of each task."""
        return LinearPredictionDensity(self.predictor(support), self.event_shape)

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> LinearPredictionDensity:
        """The same, of the places that are real."""
        return LinearPredictionDensity(self.predictor(support, lengths), self.event_shape)

    def predictor(self, support: Tensor, lengths: Tensor | None = None) -> Predictor:
        """The predictor of each task."""
        own = self._moments_of(support, lengths)
        both = self.log_trust.double().exp() * self.moments.double() + own  # float64: speech is nearly predictable
        ridge = RIDGE * both.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(self.taps).to(both)
        taps = torch.linalg.solve(both[:, :-1, :-1] + ridge, both[:, :-1, -1]).flip(-1)  # the last place first
        numbers = map(at_least_float32, (self.log_gain, self.log_floor, self.log_start, self.uniform_logit))
        gain, floor, start, uniform = numbers
        return Predictor(taps.to(gain), gain.exp(), floor.exp(), start.exp(), uniform.sigmoid(), self.levels)

    def _moments_of(self, images: Tensor, lengths: Tensor | None) -> Tensor:
        """Weighted sums of products of each amplitude and those before it: ``(tasks, taps + 1, taps + 1)``.

        images: ``(S, tasks, C, *space)``; lengths: ``(S, tasks)``, or None where all places are real.
        """
        sequences = in_order(images, len(self.event_shape) - 1)
        total = torch.zeros(images.shape[1], self.taps + 1, self.taps + 1, dtype=torch.float64, device=images.device)
        for number, codes in enumerate(sequences):
            x = amplitudes(codes.double(), self.levels)
            real = None if lengths is None else real_places(lengths[number].to(x.device), x.shape[-1])
            x = x if real is None else x * real
            around = F.avg_pool1d(F.pad(x.abs().unsqueeze(1), (WINDOW - 1, 0)), WINDOW, stride=1).squeeze(1)
            weight = (around + QUIET) ** -2
            weight = weight if real is None else weight * real
            rows = F.pad(x, (self.taps, 0)).unfold(-1, self.taps + 1, 1)  # (tasks, places, taps + 1)
            total = total + (rows * weight.unsqueeze(-1)).mT @ rows
        return total

    @torch.no_grad()
    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """Take the moments of ``LOOKED_AT`` training sequences; see ``FewShotModel.initialise``."""
        if int(self.places):
            return
        total, places = torch.zeros_like(self.moments, dtype=torch.float64), 0
        for index in range(-(-LOOKED_AT // (tasks * queries))):
            episode = source.episode(index, tasks, 0, queries).to(self.moments.device)
            total += self._moments_of(episode.query, episode.query_lengths).sum(0)
            places += int(episode.query_sizes.sum())
        self.moments.copy_(total / places)
        self.places.fill_(places)
