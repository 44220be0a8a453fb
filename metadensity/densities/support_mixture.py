"""The density of a mixture over support images: a kernel density estimate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.densities.linear_prediction import in_order, out_of_order
from metadensity.density import SequentialDensity
from metadensity.drawing import Draws, draw_uniforms, invert_cdf
from metadensity.likelihoods.levels import gather_levels


class MixtureDensity(SequentialDensity):
    """A mixture of densities with independent pixels: one for each image of a support, and their common prior.

    images: ``(S, tasks, C, *space)``; prior: ``(levels, C, *space)`` log-probabilities; noise: probability of a pixel
    to be redrawn; log_weights: ``(S + 1,)``, normalised, the prior's last. kernel: probabilities ``(levels, levels)``
    of what is drawn in place of a level of an image that is not redrawn; None: that level itself.
    Nothing here holds a table of all levels for each task, which 256 of them make large.
    """

    def __init__(
        self, images: Tensor, prior: Tensor, noise: Tensor, log_weights: Tensor, kernel: Tensor | None = None
    ) -> None:
        self.images, self.prior, self.noise, self.log_weights, self.kernel = images, prior, noise, log_weights, kernel
        super().__init__(images.shape[1], images.shape[2:], len(prior))

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        """The conditionals of the mixture: differences of its running totals in raster order, channels fastest."""
        space_dims = len(self.event_shape) - 1
        by_prior = gather_levels(self.prior[None], value)
        redrawn = self.noise * by_prior.exp()
        kept = [(redrawn + (1 - self.noise) * self._kept(value, image)).log() for image in self.images]
        terms = torch.stack([*kept, by_prior]).movedim(-space_dims - 1, -1)  # (components, *sample, tasks, *space, C)
        running = terms.flatten(-space_dims - 1).cumsum(-1) + self.log_weights.view(
            -1, *[1] * (value.ndim - space_dims)
        )
        total = F.pad(running.logsumexp(0), (1, 0))
        return total.diff(dim=-1).view(terms.shape[1:]).movedim(-1, -space_dims - 1)

    def _kept(self, value: Tensor, image: Tensor) -> Tensor:
        """The probability of ``value`` in place of a level of an image, where that is not redrawn."""
        return value == image if self.kernel is None else self.kernel[image.long(), value.long()]

    def _level_log_probs(self, value: Tensor) -> Tensor:
        """The components' levels, weighted by what the pixels before say of them."""
        dims, levels = len(self.event_shape) - 1, torch.arange(self.levels, device=self.device)
        every = levels.view(-1, *[1] * (dims + 1)).expand(-1, *self.event_shape)  # (levels, C, *space)
        redrawn = self.noise * self.prior.exp()
        tables = [(redrawn + (1 - self.noise) * self._kept(every, image.unsqueeze(1))).log() for image in self.images]
        whole = torch.stack([*tables, self.prior.expand(self.tasks, *self.prior.shape)])
        terms = torch.stack([gather_levels(table, value) for table in whole])
        sites = F.pad(in_order(terms, dims).cumsum(-1), (1, -1))
        before = (sites + self.log_weights.view(-1, *[1] * (sites.ndim - 1))).log_softmax(0)
        weights = out_of_order(before, self.event_shape).unsqueeze(-2 - dims)
        return (weights + whole.view(-1, *[1] * (value.ndim - dims - 2), *whole.shape[1:])).logsumexp(0)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.prior.device

    def _drawn(self, draws: Draws) -> Tensor:
        dims = len(self.event_shape) - 1
        flat = draws.map(lambda part: in_order(part, dims))
        images, prior = in_order(self.images, dims).long(), in_order(self.prior, dims).double().exp()
        drawn = torch.empty(flat.uniforms.shape, dtype=torch.long, device=self.device)
        running = self.log_weights.double().expand(*drawn.shape[:-1], -1)  # (*sample, tasks, components)
        same = torch.eye(self.levels, device=self.device) if self.kernel is None else self.kernel
        for place in range(drawn.shape[-1]):
            by_prior = prior[:, place].expand(self.tasks, 1, -1)
            kept = same.double()[images[..., place].T]  # (tasks, S, levels)
            table = torch.cat([self.noise * by_prior + (1 - self.noise) * kept, by_prior], 1).log()
            logits = (running.unsqueeze(-1) + table).logsumexp(-2)
            here = flat.map(lambda part, place=place: part[..., place]).levels(logits)  # type: ignore[misc]
            own = table.expand(*running.shape, -1).gather(-1, here[..., None, None].expand(*running.shape, 1))
            running = (running + own.squeeze(-1)).log_softmax(-1)
            drawn[..., place] = here
        return out_of_order(drawn, self.event_shape)

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
        if self.kernel is not None:
            image = invert_cdf(self.kernel.log()[image], draw_uniforms(shape, generator, device))
        of_image = (component < len(self.images))[(...,) + (None,) * len(self.event_shape)]
        return torch.where(kept & of_image, image, drawn)
