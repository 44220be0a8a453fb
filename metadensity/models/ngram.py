"""Interpolated counts: the exact baseline for strings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.checks import is_whole, real_places, require_sizes
from metadensity.densities.counts import SupportCounts, context_numbers
from metadensity.densities.linear_prediction import in_order
from metadensity.densities.ngram import CountTable, NGramDensity
from metadensity.densities.sequence import after_an_end
from metadensity.episode import EpisodeSource
from metadensity.likelihoods.levels import at_least_float32
from metadensity.model import FewShotModel

LOOKED_AT = 2**16  # training images are drawn, each of which counts once
MOST_PLACES = 2**22  # and are counted, or a batch more
PLACES_AT_A_TIME = 2**19


class NGram(FewShotModel):
    """Counts after the last ``order`` symbols, of the training data and, on top, of the support and the string so far.

    The training data are counted when a trainer calls ``initialise``; how much the counts of the support weigh is
    learned, a number for each length of context. Images are strings in raster order.

    order: symbols of the longest context. entries: n-grams of each length that are held, the most frequent ones.
    end: whether the last level ends a string: what follows the first of it costs nothing and is not counted.
    """

    def __init__(
        self, event_shape: Sequence[int], levels: int, *, order: int = 3, entries: int = 2**17, end: bool = False
    ) -> None:
        super().__init__(event_shape, levels)
        require_sizes(entries=entries)
        if not is_whole(order) or order < 0 or (levels + 1) ** order * levels >= 2**63:
            raise ValueError(f"order={order!r} with levels={levels}; give 0 or more, with n-grams that 63 bits count.")
        self.order, self.entries, self.end = int(order), int(entries), bool(end)
        self.log_strengths = nn.Parameter(torch.full((self.order + 1,), 2.0))
        self.table = CountTable(self.levels, self.order, self.entries)
        self.counted: Tensor
        self.register_buffer("counted", torch.zeros((), dtype=torch.int64))  # images

    def condition(self, support: Tensor) -> NGramDensity:
        """Count the support of each task."""
        return self._conditioned(support, None)

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> NGramDensity:
        """The same, of the places that are real."""
        return self._conditioned(support, lengths)

    def _conditioned(self, support: Tensor, lengths: Tensor | None) -> NGramDensity:
        sites, _, real = self._places(support, lengths)
        strengths = at_least_float32(self.log_strengths).exp()
        end = self.levels - 1 if self.end else None
        counts = SupportCounts.of(sites, strengths, self.levels, real)
        return NGramDensity(self.table, counts, self.event_shape, end)

    def _places(self, images: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Symbols ``(n, tasks, places)``, their contexts ``(n, tasks, places, order + 1)``, and whether they count."""
        sites = in_order(images, len(self.event_shape) - 1).long()
        real = torch.ones_like(sites, dtype=torch.bool)
        if lengths is not None:
            real = real_places(lengths.to(sites.device), sites.shape[-1])
        if self.end:
            real = real & ~after_an_end(sites, self.levels - 1)
        return sites, context_numbers(sites, self.levels, self.order), real

    @torch.no_grad()
    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """Draw ``LOOKED_AT`` training images, and count each once; see ``FewShotModel.initialise``.

        It ends before, once as many draws in a row were of known images as there are known ones, or with
        ``MOST_PLACES``. tasks: taken as many as fit into memory at a time.
        """
        if int(self.counted):
            return
        known: set[int] = set()
        contexts, symbols, idle, places = [], [], 0, 0
        tasks = max(1, min(256, PLACES_AT_A_TIME // (queries * math.prod(self.event_shape))))
        for index in range(-(-LOOKED_AT // (tasks * queries))):
            episode = source.episode(index, tasks, 0, queries)
            fresh = torch.ones(queries, tasks, dtype=torch.bool)
            if episode.query_ids is not None:
                for place, number in enumerate(episode.query_ids.flatten().tolist()):
                    fresh.view(-1)[place] = number not in known
                    known.add(number)
            idle = 0 if fresh.any() else idle + fresh.numel()
            if idle > len(known) or places > MOST_PLACES:
                break
            sites, numbers, real = self._places(episode.query, episode.query_lengths)
            real = real & fresh.unsqueeze(-1)
            contexts.append(numbers[real])
            symbols.append(sites[real])
            places += int(real.sum())
            self.counted += int(fresh.sum())
        device = self.table.keys.device
        self.table.count(torch.cat(contexts).to(device), torch.cat(symbols).to(device))
