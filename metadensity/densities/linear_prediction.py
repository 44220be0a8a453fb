"""Linear prediction of sound as an exact density of its codes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.density import SequentialDensity
from metadensity.drawing import Draws

MU = 255.0  # of the law by which levels stand for amplitudes, however many levels there are
WINDOW = 32  # places whose errors make the running scale


def amplitudes(places: Tensor, levels: int) -> Tensor:
    """What amplitudes in [-1, 1] levels stand for, by the mu-law of the literature; between levels, their borders."""
    companded = places * (2 / (levels - 1)) - 1
    return companded.sign() * torch.expm1(companded.abs() * math.log1p(MU)) / MU


def in_order(images: Tensor, dims: int) -> Tensor:
    """``(..., C, *space)`` with ``dims`` space dimensions as ``(..., places)`` in raster order, channels fastest."""
    return images.movedim(-dims - 1, -1).flatten(-dims - 1)


def out_of_order(sites: Tensor, event_shape: Sequence[int]) -> Tensor:
    """``in_order`` undone: ``(..., places)`` as ``(..., C, *space)``."""
    channels, *space = event_shape
    return sites.unflatten(-1, (*space, channels)).movedim(-1, -len(event_shape))


class LinearPredictionDensity(SequentialDensity):
    """Each amplitude is logistic around a weighted sum of those before it, with a scale that follows the errors.

    scale_t = gain * (mean of the last ``WINDOW`` absolute errors) + floor, where ``start`` stands for errors before the
    first place. A level has the mass between its borders, the outer ones all that lies beyond, but for a part
    ``uniform`` that all levels share alike: exact, and a sum of one at each place.

    taps: ``(tasks, taps)``, that of the place before first. gain, floor, start, uniform: numbers, positive, the last
    below 1.
    """

    def __init__(
        self,
        taps: Tensor,
        gain: Tensor,
        floor: Tensor,
        start: Tensor,
        uniform: Tensor,
        event_shape: Sequence[int],
        levels: int,
        validate_args: bool | None = None,
    ) -> None:
        self.taps, self.gain, self.floor, self.start, self.uniform = taps, gain, floor, start, uniform
        super().__init__(len(taps), event_shape, levels, validate_args)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.taps.device

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        codes = in_order(value, len(self.event_shape) - 1).long()
        if not codes.numel():
            return self.taps.new_zeros(value.shape)
        x = amplitudes(codes.to(self.taps), self.levels)
        mean = self._predicted(F.pad(x, (self.taps.shape[-1], 0)), x.shape[-1])
        errors = F.pad((x - mean).abs(), (WINDOW, 0))[..., :-1]
        before = torch.arange(errors.shape[-1], device=x.device) < WINDOW
        errors = torch.where(before, self.start, errors)
        running = F.avg_pool1d(errors.reshape(-1, 1, errors.shape[-1]), WINDOW, stride=1).view(x.shape)
        return out_of_order(self._log_mass(codes, mean, self._scale(running)), self.event_shape)

    def _predicted(self, padded: Tensor, places: int) -> Tensor:
        """The means of ``places`` places, from amplitudes ``(..., tasks, taps + places)``, those before them first."""
        total, taps = torch.zeros_like(padded[..., :places]), self.taps.shape[-1]
        for lag in range(taps):
            total = total + self.taps[:, lag : lag + 1] * padded.narrow(-1, taps - 1 - lag, places)
        return total

    def _scale(self, running: Tensor) -> Tensor:
        return self.gain * running + self.floor

    def _log_mass(self, codes: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """log p of levels ``codes``; the mass on the side of the tail, where the difference of two numbers is exact."""
        low = (amplitudes(codes.to(mean) - 0.5, self.levels) - mean) / scale
        high = (amplitudes(codes.to(mean) + 0.5, self.levels) - mean) / scale
        above = low + high > 0
        first, last = codes == 0, codes == self.levels - 1
        below = torch.where(last, 1.0, high.sigmoid()) - torch.where(first, 0.0, low.sigmoid())
        beyond = torch.where(first, 1.0, (-low).sigmoid()) - torch.where(last, 0.0, (-high).sigmoid())
        mass = torch.where(above, beyond, below).clamp(min=0)
        return ((1 - self.uniform) * mass + self.uniform / self.levels).log()

    def _drawn(self, draws: Draws) -> Tensor:
        dims = len(self.event_shape) - 1
        flat = draws.map(lambda part: in_order(part, dims))
        shape, taps = flat.uniforms.shape, self.taps.shape[-1]
        x = self.taps.new_zeros(*shape[:-1], taps + shape[-1])
        errors = self.start.expand(*shape[:-1], WINDOW + shape[-1]).clone()
        levels = torch.arange(self.levels, device=self.device)
        drawn = torch.empty(shape, dtype=torch.long, device=self.device)
        for place in range(shape[-1]):
            mean = (self.taps * x[..., place : place + taps].flip(-1)).sum(-1)
            scale = self._scale(errors[..., place : place + WINDOW].mean(-1))
            codes = levels.expand(*shape[:-1], -1)
            logits = self._log_mass(codes, mean.unsqueeze(-1), scale.unsqueeze(-1))
            drawn[..., place] = flat.map(lambda part, place=place: part[..., place]).levels(logits)  # type: ignore[misc]
            x[..., taps + place] = amplitudes(drawn[..., place].to(x), self.levels)
            errors[..., WINDOW + place] = (x[..., taps + place] - mean).abs()
        return out_of_order(drawn, self.event_shape)
