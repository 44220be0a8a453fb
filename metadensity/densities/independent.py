"""Pixels independent of one another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metadensity.density import FactorisedDensity
from metadensity.drawing import Draws, draw_uniforms, invert_cdf
from metadensity.likelihoods.levels import at_least_float32, gather_levels
from metadensity.sampling.naive import sample_by_logits


class IndependentDensity(FactorisedDensity):
    """Pixels independent of one another, each with its own categorical distribution.

    logits: ``(tasks, levels, C, *space)``, normalised here; or ``(1, levels, C, *space)``, the same for all ``tasks``.
    log_probs: what they are normalised to. A table of 256 levels is large: no copy of it is made for each image.
    """

    log_probs: Tensor

    def __init__(self, logits: Tensor, validate_args: bool | None = None, tasks: int | None = None) -> None:
        given, levels, *event_shape = logits.shape
        self.log_probs = at_least_float32(logits).log_softmax(1)
        super().__init__(given if tasks is None else tasks, event_shape, levels, validate_args)

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        return gather_levels(self.log_probs, value)

    def _level_log_probs(self, value: Tensor) -> Tensor:
        sample = value.shape[: -len(self.event_shape) - 1]
        return self.log_probs.expand(*sample, self.tasks, *self.log_probs.shape[1:])

    @torch.no_grad()
    def drawn(self, draws: Draws) -> Tensor:
        """Images whose pixels ``draws`` decides in raster order; see ``SequentialDensity.drawn``."""
        flat = draws.map(lambda part: part.reshape(-1, *self.event_shape))
        table = self._level_log_probs(draws.uniforms).flatten(0, -len(self.event_shape) - 2)
        return sample_by_logits(lambda _: table, flat).view(draws.uniforms.shape)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        uniforms = draw_uniforms(self._extended(sample_shape), generator, self.log_probs.device)
        return invert_cdf(self.log_probs.movedim(1, -1), uniforms)
