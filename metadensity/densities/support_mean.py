"""The density of pixel frequencies of a support."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from metadensity.densities.independent import IndependentDensity
from metadensity.density import Density
from metadensity.likelihoods.levels import gather_levels


class SupportMeanDensity(IndependentDensity):
    """Independent pixels with p = (strength * prior + counts) / (strength + S), the counts those of ``images``.

    prior: ``(levels, C, *space)`` probabilities; strength: a positive number; images: ``(S, tasks, C, *space)``.
    Scored without a table of all levels for each task, which 256 of them make large; ``log_probs`` is that table.
    """

    def __init__(self, prior: Tensor, strength: Tensor, images: Tensor) -> None:
        self.prior, self.strength, self.images = prior, strength, images
        Density.__init__(self, images.shape[1], images.shape[2:], len(prior))

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        counts = torch.zeros_like(value, dtype=self.prior.dtype)
        for image in self.images:
            counts = counts + (value == image)
        return self._log(gather_levels(self.prior[None], value), counts)

    @cached_property
    def log_probs(self) -> Tensor:  # type: ignore[override]  # made when it is asked for
        """``(tasks, levels, C, *space)``."""
        levels = torch.arange(self.levels, device=self.prior.device).view(-1, *[1] * len(self.event_shape))
        return self._log(self.prior, (self.images.unsqueeze(2) == levels).sum(0))

    def _log(self, prior: Tensor, counts: Tensor) -> Tensor:
        return ((self.strength * prior + counts) / (self.strength + len(self.images))).log()
