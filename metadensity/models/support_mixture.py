"""Mixture over the support images: a kernel density estimate of each task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.densities.support_mixture import MixtureDensity
from metadensity.likelihoods.levels import at_least_float32
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
        prior, noise_logit, prior_logit = map(at_least_float32, (self.logits, self.noise_logit, self.prior_logit))
        weights = torch.cat([torch.zeros_like(prior_logit).expand(len(support)), prior_logit[None]])
        return MixtureDensity(support, prior.log_softmax(0), noise_logit.sigmoid(), weights.log_softmax(0))
