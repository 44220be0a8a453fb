"""One distribution for all places, as an exact density."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from metadensity.densities.independent import IndependentDensity
from metadensity.density import Density
from metadensity.likelihoods.levels import gather_levels


class HistogramDensity(IndependentDensity):
    """Pixels that are independent draws of one distribution for each task, whatever their place and channel.

    probs: ``(tasks, levels)``, positive, with a sum of one. Scored without a table of the size of the event.
    """

    def __init__(self, probs: Tensor, event_shape: Sequence[int], validate_args: bool | None = None) -> None:
        tasks, levels = probs.shape
        self._table = probs.log()
        self.log_probs = self._table.view(tasks, levels, *[1] * len(event_shape)).expand(-1, -1, *event_shape)
        Density.__init__(self, tasks, event_shape, levels, validate_args)

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        places = value.flatten(-len(self.event_shape))
        return gather_levels(self._table.unsqueeze(-1), places).view(value.shape)
