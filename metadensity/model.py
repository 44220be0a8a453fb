"""What every few-shot model is: a module that turns a support set into a density."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metadensity.checks import is_whole, require_integer_pixels, require_lengths, require_levels
from metadensity.density import Density
from metadensity.episode import EpisodeSource


class FewShotModel(nn.Module):
    """``density = model(support)``: conditioned once, used many times.

    event_shape: ``(C, *space)`` with one, two or three space dimensions. levels: number of pixel values.
    config: the constructor arguments, JSON values only; ``metadensity.save`` writes them beside the weights.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__()
        self.provenance: dict[str, Any] = {}
        try:
            space = tuple(operator.index(size) for size in event_shape)
        except TypeError:  # not a sequence, or not of whole numbers
            space = ()
        if not 2 <= len(space) <= 4 or min(space) < 1:
            raise ValueError(
                f"event_shape={event_shape}; it must be (channels, *space) with one to three space dimensions of at "
                "least one place each, for example (1, 28, 28)."
            )
        if not is_whole(levels) or levels < 2:
            raise ValueError(
                f"levels={levels!r}; a pixel needs at least 2 levels (2 for binary, 256 for 8-bit images)."
            )
        self.event_shape: tuple[int, ...] = space
        self.levels = int(levels)
        self.config: dict[str, Any] = {"event_shape": list(space), "levels": self.levels, **options}

    def forward(self, support: Tensor, lengths: Tensor | None = None) -> Density:
        """The density of each task given its support ``(S, tasks, C, *space)``, integers in [0, levels). S may be 0.

        lengths: of sequences, ``(S, tasks)`` integers: how many of the first places of each are real. None: all.

        Raises TypeError for pixels that are no integers, ValueError for a wrong shape or a level out of range, and for
        lengths where the model reads supports of one size.
        """
        self.check_support(support)
        if lengths is None:
            return self.condition(support)
        require_lengths("lengths", lengths, support.shape[:2], support.shape[-1])
        return self.condition_on_lengths(support, lengths)

    def check_support(self, support: Tensor) -> None:
        """Raise as ``forward`` does unless this is a support for this model."""
        require_integer_pixels("support", support)
        if support.ndim != len(self.event_shape) + 2 or tuple(support.shape[2:]) != self.event_shape:
            raise ValueError(
                f"support has shape {tuple(support.shape)}; this model needs (shots, tasks, channels, *space) = "
                f"(shots, tasks, {', '.join(map(str, self.event_shape))})."
            )
        require_levels("support", support, self.levels)

    @abstractmethod
    def condition(self, support: Tensor) -> Density:
        """The density given a support that has been checked."""

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> Density:
        """``condition`` of sequences of which the first ``lengths`` ``(S, tasks)`` places are real, checked as well.

        A model that can read them overrides this; places that are not real must move nothing.
        """
        raise ValueError(
            f"{type(self).__name__} reads supports of one size and was given lengths, so it would take padding for "
            "content. Cut windows of one length (metadensity.episode.windows), or take a model that reads lengths."
        )

    def loss(
        self,
        support: Tensor,
        query: Tensor,
        generator: torch.Generator | None = None,
        support_lengths: Tensor | None = None,
        query_lengths: Tensor | None = None,
    ) -> Tensor:
        """What training minimises, in nats, ``(Q, tasks)``: here minus the log-likelihood of the queries.

        support: ``(S, tasks, C, *space)``; query: ``(Q, tasks, C, *space)``. generator: for losses that draw.
        lengths: as those of an Episode. Raises as the model and its density do.
        """
        density = self(support, support_lengths)
        if query_lengths is None:
            return -density.log_prob(query, generator)
        return -density.prefix_log_prob(query, query_lengths)

    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """Look at data before training begins, which is when a trainer calls this: by default there is no need to.

        source: the training episodes, to be asked for some of ``tasks`` tasks with ``queries`` queries. A model that
        was trained already must stay as it is.
        """
