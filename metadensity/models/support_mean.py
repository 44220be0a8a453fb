"""Smoothed support mean: pixel frequencies of the support, shrunk towards those of the training set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.density import IndependentDensity
from metadensity.models.base import FewShotModel


class SupportMean(FewShotModel):
    """Independent pixels with p = (strength * prior + counts) / (strength + S): a Dirichlet posterior mean.

    The prior is one distribution a pixel, the strength one positive number; both are learned.
    """

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.logits = nn.Parameter(torch.zeros(levels, *self.event_shape))
        self.log_strength = nn.Parameter(torch.zeros(()))

    def condition(self, support: Tensor) -> IndependentDensity:
        """Add the counts of the support to the prior."""
        shots, strength = len(support), self.log_strength.exp()
        levels = torch.arange(self.levels, device=support.device).view(-1, *[1] * len(self.event_shape))
        counts = (support.unsqueeze(2) == levels).sum(0)
        return IndependentDensity(((strength * self.logits.softmax(0) + counts) / (strength + shots)).log())
