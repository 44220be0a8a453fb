"""Smoothed support mean: pixel frequencies of the support, shrunk towards those of the training set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from metadensity.density import Density, IndependentDensity, look_up
from metadensity.models.base import FewShotModel


class SupportMeanDensity(IndependentDensity):
    """Independent pixels with p = (strength * prior + counts) / (strength + S), the counts those of ``images``.

    prior: ``(levels, C, *space)`` probabilities; strength: a positive number; images: ``(S, tasks, C, *space)``.
    Scored without a table of all levels for each task, which 256 of them make large; ``log_probs`` is that table.
    """

    def __init__(self, prior: Tensor, strength: Tensor, images: Tensor) -> None:
        self.prior, self.strength, self.images = prior, strength, images
        Density.__init__(self, images.shape[1], images.shape[2:], len(prior))

    def _pixel_log_prob(self, value: Tensor) -> Tensor:
        counts = torch.zeros_like(value, dtype=self.prior.dtype)
        for image in self.images:
            counts = counts + (value == image)
        return self._log(look_up(self.prior[None], value), counts)

    @cached_property
    def log_probs(self) -> Tensor:  # type: ignore[override]  # made when it is asked for
        """``(tasks, levels, C, *space)``."""
        levels = torch.arange(self.levels, device=self.prior.device).view(-1, *[1] * len(self.event_shape))
        return self._log(self.prior, (self.images.unsqueeze(2) == levels).sum(0))

    def _log(self, prior: Tensor, counts: Tensor) -> Tensor:
        return ((self.strength * prior + counts) / (self.strength + len(self.images))).log()


class SupportMean(FewShotModel):
    """Independent pixels whose distributions are a Dirichlet posterior mean given the support.

    The prior is one distribution a pixel, the strength one positive number; both are learned.
    """

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.logits = nn.Parameter(torch.zeros(levels, *self.event_shape))
        self.log_strength = nn.Parameter(torch.zeros(()))

    def condition(self, support: Tensor) -> SupportMeanDensity:
        """Add the counts of the support to the prior."""
        return SupportMeanDensity(self.logits.softmax(0), self.log_strength.exp(), support)
