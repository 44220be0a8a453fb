"""Mixture over the support images: a kernel density estimate of each task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.density import Density, invert_cdf
from metadensity.models.base import FewShotModel


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
        shots, tasks = support.shape[:2]
        prior = self.logits.softmax(0)
        levels = torch.arange(self.levels, device=support.device).view(-1, *[1] * len(self.event_shape))
        kept = (support.unsqueeze(2) == levels).to(prior.dtype)  # F.one_hot looks at the values, which vmap refuses
        noise = self.noise_logit.sigmoid()
        components = torch.cat([(1 - noise) * kept + noise * prior, prior.expand(1, tasks, *prior.shape)])
        weights = torch.cat([torch.zeros_like(self.prior_logit).expand(shots), self.prior_logit[None]]).log_softmax(0)
        return MixtureDensity(components.log(), weights)


class MixtureDensity(Density):
    """A mixture of densities with independent pixels.

    log_probs: ``(components, tasks, levels, C, *space)``; log_weights: ``(components,)``, both normalised.
    """

    def __init__(self, log_probs: Tensor, log_weights: Tensor, validate_args: bool | None = None) -> None:
        _, tasks, levels, *event_shape = log_probs.shape
        self.log_probs, self.log_weights = log_probs, log_weights
        super().__init__(tasks, event_shape, levels, validate_args)

    def _pixel_log_prob(self, value: Tensor) -> Tensor:
        """The conditionals of the mixture: differences of its running totals in raster order, channels fastest."""
        dims = len(self.event_shape) - 1
        index = value.long().unsqueeze(-1)
        terms = torch.stack(
            [table.movedim(1, -1).expand(*value.shape, -1).gather(-1, index)[..., 0] for table in self.log_probs]
        )
        terms = terms.movedim(-dims - 1, -1)  # (components, *sample, tasks, *space, C)
        running = terms.flatten(-dims - 1).cumsum(-1) + self.log_weights.view(-1, *[1] * (value.ndim - dims))
        total = F.pad(running.logsumexp(0), (1, 0))
        return total.diff(dim=-1).view(terms.shape[1:]).movedim(-1, -dims - 1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        shape, device = self._extended(sample_shape), self.log_probs.device
        choices = torch.rand(*sample_shape, self.tasks, generator=generator, device=device)
        component = invert_cdf(self.log_weights, choices)  # (*sample, tasks)
        table = self.log_probs[component, torch.arange(self.tasks, device=device)].movedim(len(sample_shape) + 1, -1)
        return invert_cdf(table, torch.rand(shape, generator=generator, device=device))
