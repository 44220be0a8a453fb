"""The histogram of the support: how much the levels alone tell, whatever their order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.checks import real_places
from metadensity.densities.histogram import HistogramDensity
from metadensity.episode import EpisodeSource
from metadensity.likelihoods.levels import at_least_float32
from metadensity.model import FewShotModel

LOOKED_AT = 256  # images of the training data


class Histogram(FewShotModel):
    """Every pixel from one distribution: p(level) = (strength * prior + count in the support) / (strength + pixels).

    The prior begins as the histogram of the training data, which a trainer lets it look at (``initialise``); it and the
    strength are learned. What it gains by supports is what their levels tell without any order: of recordings, their
    offset and loudness. For strings that end take ``NGram(order=0)``, which knows an end.
    """

    any_places = True

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.log_strength = nn.Parameter(torch.tensor(math.log(100.0)))
        self.logits = nn.Parameter(torch.zeros(self.levels))
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # pixels that they began with

    def condition(self, support: Tensor) -> HistogramDensity:
        """Add the counts of the support to the prior."""
        return self._conditioned(self._counts(support, None))

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> HistogramDensity:
        """The same, of the places that are real."""
        return self._conditioned(self._counts(support, lengths))

    def _conditioned(self, counts: Tensor) -> HistogramDensity:
        strength = at_least_float32(self.log_strength).exp()
        counts, prior = counts.to(strength), at_least_float32(self.logits).softmax(0)
        return HistogramDensity(
            (strength * prior + counts) / (strength + counts.sum(-1, keepdim=True)), self.event_shape
        )

    def _counts(self, images: Tensor, lengths: Tensor | None) -> Tensor:
        """How often each level occurs in images ``(S, tasks, C, *space)``: ``(tasks, levels)`` int64."""
        counted = torch.ones_like(images, dtype=torch.int64)
        if lengths is not None:
            counted = counted * real_places(lengths.to(images.device), images.shape[-1]).unsqueeze(-2)
        levels, counted = (part.movedim(1, 0).flatten(1) for part in (images.long(), counted))
        return levels.new_zeros(len(levels), self.levels).scatter_add(1, levels, counted)

    @torch.no_grad()
    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """Begin with the histogram of ``LOOKED_AT`` training images, one more of each level; see ``FewShotModel``."""
        if int(self.seen):
            return
        counts = torch.zeros_like(self.logits, dtype=torch.int64)
        for index in range(-(-LOOKED_AT // (tasks * queries))):
            episode = source.episode(index, tasks, 0, queries).to(counts.device)
            counts += self._counts(episode.query, episode.query_lengths).sum(0)
        self.logits.copy_((1 + counts).log())
        self.seen += counts.sum()
