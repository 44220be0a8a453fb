"""Linear prediction of sound: a mean and a scale for each sample, of those before it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MU = 255.0  # of the law by which levels stand for amplitudes, however many levels there are
WINDOW = 32  # places whose errors make the running scale


def amplitudes(places: Tensor, levels: int) -> Tensor:
    """What amplitudes in [-1, 1] levels stand for, by the mu-law of the literature; between levels, their borders."""
    companded = places * (2 / (levels - 1)) - 1
    return companded.sign() * torch.expm1(companded.abs() * math.log1p(MU)) / MU


def level_mass(codes: Tensor, mean: Tensor, scale: Tensor, levels: int) -> Tensor:
    """The mass of logistic distributions between the borders of levels ``codes``; the arguments broadcast.

    The outer levels have all that lies beyond. On the side of the tail, where the difference of two numbers is exact.
    """
    low = (amplitudes(codes.to(mean) - 0.5, levels) - mean) / scale
    high = (amplitudes(codes.to(mean) + 0.5, levels) - mean) / scale
    above = low + high > 0
    first, last = codes == 0, codes == levels - 1
    below = torch.where(last, 1.0, high.sigmoid()) - torch.where(first, 0.0, low.sigmoid())
    beyond = torch.where(first, 1.0, (-low).sigmoid()) - torch.where(last, 0.0, (-high).sigmoid())
    return torch.where(above, beyond, below).clamp(min=0)


@dataclass(frozen=True)
class Predictor:
    """mean_t = sum_k taps_k x_{t-k}; scale_t = gain * (mean of the last ``WINDOW`` absolute errors) + floor.

    taps: ``(tasks, taps)``, that of the place before first. gain, floor, start, uniform: positive numbers; ``start``
    stands for errors before the first place, ``uniform``, below 1, is the part of the mass that all levels share.
    """

    taps: Tensor
    gain: Tensor
    floor: Tensor
    start: Tensor
    uniform: Tensor
    levels: int

    def __call__(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Amplitudes, means and scales of integer codes ``(..., tasks, places)``, of the same shape each."""
        x = amplitudes(codes.to(self.taps), self.levels)
        mean = self._predicted(F.pad(x, (self.taps.shape[-1], 0)), x.shape[-1])
        errors = F.pad((x - mean).abs(), (WINDOW, 0))[..., :-1]
        before = torch.arange(errors.shape[-1], device=x.device) < WINDOW
        errors = torch.where(before, self.start, errors)
        running = F.avg_pool1d(errors.reshape(-1, 1, errors.shape[-1]), WINDOW, stride=1).view(x.shape)
        return x, mean, self._scale(running)

    def _predicted(self, padded: Tensor, places: int) -> Tensor:
        """The means of ``places`` places, from amplitudes ``(..., tasks, taps + places)``, those before them first."""
        total, taps = torch.zeros_like(padded[..., :places]), self.taps.shape[-1]
        for lag in range(taps):
            total = total + self.taps[:, lag : lag + 1] * padded.narrow(-1, taps - 1 - lag, places)
        return total

    def _scale(self, running: Tensor) -> Tensor:
        return self.gain * running + self.floor


class Predicting:
    """``predictor`` a place at a time, of sequences ``(*batch, tasks)`` at once: it keeps what it looks back at."""

    def __init__(self, predictor: Predictor, *batch: int) -> None:
        self.predictor = predictor
        tasks, taps = predictor.taps.shape
        self._past = predictor.taps.new_zeros(*batch, tasks, taps)  # the place before first
        self._errors = predictor.start.expand(*batch, tasks, WINDOW).clone()

    def next(self) -> tuple[Tensor, Tensor]:
        """Mean and scale of the place that comes, ``(*batch, tasks)``."""
        mean = (self.predictor.taps * self._past).sum(-1)
        return mean, self.predictor._scale(self._errors.mean(-1))

    def put(self, codes: Tensor, mean: Tensor) -> Tensor:
        """Take the codes of that place, whose mean ``next`` gave; returns the amplitudes."""
        x = amplitudes(codes.to(mean), self.predictor.levels)
        self._past = torch.cat([x.unsqueeze(-1), self._past[..., :-1]], -1)
        self._errors = torch.cat([self._errors[..., 1:], (x - mean).abs().unsqueeze(-1)], -1)
        return x
