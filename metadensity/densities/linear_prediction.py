"""Linear prediction of sound as an exact density of its codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metadensity.density import SequentialDensity
from metadensity.drawing import Draws
from metadensity.nn.linear_prediction import Predicting, Predictor, level_mass


def in_order(images: Tensor, dims: int) -> Tensor:
    """``(..., C, *space)`` with ``dims`` space dimensions as ``(..., places)`` in raster order, channels fastest."""
    return images.movedim(-dims - 1, -1).flatten(-dims - 1)


def out_of_order(sites: Tensor, event_shape: Sequence[int]) -> Tensor:
    """``in_order`` undone: ``(..., places)`` as ``(..., C, *space)``."""
    channels, *space = event_shape
    return sites.unflatten(-1, (*space, channels)).movedim(-1, -len(event_shape))


class LinearPredictionDensity(SequentialDensity):
    """Each amplitude is logistic around a weighted sum of those before it, with a scale that follows the errors.

    A level has the mass between its borders, the outer ones all that lies beyond, but for a part that all levels share
    alike: exact, and a sum of one at each place. Mean, scale and part: see ``Predictor``.
    """

    def __init__(self, predictor: Predictor, event_shape: Sequence[int], validate_args: bool | None = None) -> None:
        self.predictor = predictor
        super().__init__(len(predictor.taps), event_shape, predictor.levels, validate_args)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.predictor.taps.device

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        codes = in_order(value, len(self.event_shape) - 1).long()
        if not codes.numel():
            return self.predictor.taps.new_zeros(value.shape)
        _, mean, scale = self.predictor(codes)
        return out_of_order(self._log_mass(codes, mean, scale), self.event_shape)

    def _level_log_probs(self, value: Tensor) -> Tensor:
        codes = in_order(value, len(self.event_shape) - 1).long()
        if not codes.numel():
            return super()._level_log_probs(value)
        _, mean, scale = self.predictor(codes)
        levels = torch.arange(self.levels, device=self.device)
        found = self._log_mass(levels.expand(*codes.shape, -1), mean.unsqueeze(-1), scale.unsqueeze(-1))
        return out_of_order(found.mT, self.event_shape)

    def _log_mass(self, codes: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        uniform = self.predictor.uniform
        return ((1 - uniform) * level_mass(codes, mean, scale, self.levels) + uniform / self.levels).log()

    def _drawn(self, draws: Draws) -> Tensor:
        dims = len(self.event_shape) - 1
        flat = draws.map(lambda part: in_order(part, dims))
        shape = flat.uniforms.shape
        predicting, levels = Predicting(self.predictor, *shape[:-2]), torch.arange(self.levels, device=self.device)
        drawn = torch.empty(shape, dtype=torch.long, device=self.device)
        for place in range(shape[-1]):
            mean, scale = predicting.next()
            codes = levels.expand(*shape[:-1], -1)
            logits = self._log_mass(codes, mean.unsqueeze(-1), scale.unsqueeze(-1))
            drawn[..., place] = flat.map(lambda part, place=place: part[..., place]).levels(logits)  # type: ignore[misc]
            predicting.put(drawn[..., place], mean)
        return out_of_order(drawn, self.event_shape)
