"""The density of a mixture over support images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.density import FactorisedDensity
from metadensity.drawing import draw_uniforms, invert_cdf
from metadensity.likelihoods.levels import gather_levels


class MixtureDensity(FactorisedDensity):
    """A mixture of densities with independent pixels: one for each image of a support, and their common prior.

    images: ``(S, tasks, C, *space)``; prior: ``(levels, C, *space)`` log-probabilities; noise: probability of a pixel
    to be redrawn; log_weights: ``(S + 1,)``, normalised, the prior's last.
    Nothing here holds a table of all levels for each task, which 256 of them make large.
    """

    def __init__(self, images: Tensor, prior: Tensor, noise: Tensor, log_weights: Tensor) -> None:
        self.images, self.prior, self.noise, self.log_weights = images, prior, noise, log_weights
        super().__init__(images.shape[1], images.shape[2:], len(prior))

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        """The conditionals of the mixture: differences of its running totals in raster order, channels fastest."""
        space_dims = len(self.event_shape) - 1
        by_prior = gather_levels(self.prior[None], value)
        redrawn = self.noise * by_prior.exp()
        kept = [(redrawn + (1 - self.noise) * (value == image)).log() for image in self.images]
        terms = torch.stack([*kept, by_prior]).movedim(-space_dims - 1, -1)  # (components, *sample, tasks, *space, C)
        running = terms.flatten(-space_dims - 1).cumsum(-1) + self.log_weights.view(
            -1, *[1] * (value.ndim - space_dims)
        )
        total = F.pad(running.logsumexp(0), (1, 0))
        return total.diff(dim=-1).view(terms.shape[1:]).movedim(-1, -space_dims - 1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        shape, device = self._extended(sample_shape), self.prior.device
        uniforms = draw_uniforms(shape, generator, device)
        drawn = invert_cdf(self.prior.movedim(0, -1), uniforms)
        if not len(self.images):
            return drawn
        choices = draw_uniforms((*sample_shape, self.tasks), generator, device)
        component = invert_cdf(self.log_weights, choices)  # (*sample, tasks)
        image = self.images.long()[component.clamp(max=len(self.images) - 1), torch.arange(self.tasks, device=device)]
        kept = draw_uniforms(shape, generator, device) >= self.noise
        of_image = (component < len(self.images))[(...,) + (None,) * len(self.event_shape)]
        return torch.where(kept & of_image, image, drawn)
