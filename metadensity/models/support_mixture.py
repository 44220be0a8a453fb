"""Mixture over the support images: a kernel density estimate of each task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.densities.support_mixture import MixtureDensity
from metadensity.model import FewShotModel


class SupportMixture(FewShotModel):
    """Each support image with noisy pixels is one component; the prior of independent pixels is one more.

    A component keeps a pixel of its support image with probability 1 - noise and redraws it from the
    prior otherwise. Noise, weight of the prior and prior are learned.
    """

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.logits = nn.Parameter(torch.zeros(levels, *self.event_shape))
        self.noise_logit = nn.Parameter(torch.zeros(()))
        self.prior_logit = nn.Parameter(torch.zeros(()))

    def condition(self, support: Tensor) -> MixtureDensity:
        """One component a support image, and the prior."""
        weights = torch.cat([torch.zeros_like(self.prior_logit).expand(len(support)), self.prior_logit[None]])
        return MixtureDensity(support, self.logits.log_softmax(0), self.noise_logit, weights.log_softmax(0))
