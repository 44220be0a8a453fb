"""Smoothed support mean: pixel frequencies of the support, shrunk towards those of the training set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.densities.support_mean import SupportMeanDensity
from metadensity.likelihoods.levels import at_least_float32
from metadensity.model import FewShotModel


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
        prior, strength = at_least_float32(self.logits), at_least_float32(self.log_strength)
        return SupportMeanDensity(prior.softmax(0), strength.exp(), support)
