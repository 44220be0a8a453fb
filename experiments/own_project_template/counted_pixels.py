"""A model of one's own: a ``FewShotModel`` whose ``condition`` returns a density, given a support."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.densities.independent import IndependentDensity
from metadensity.model import FewShotModel


class CountedPixels(FewShotModel):
    """Independent pixels; their logits are learned ones plus a multiple of the log-counts in the support."""

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.prior = nn.Parameter(torch.zeros(levels, *self.event_shape))
        self.weight = nn.Parameter(torch.ones(()))

    def condition(self, support: Tensor) -> IndependentDensity:
        """support: ``(shots, tasks, C, *space)``, whole numbers in [0, levels), checked; there may be no shots."""
        counts = torch.stack([(support == level).sum(0) for level in range(self.levels)], 1)
        return IndependentDensity(self.prior + self.weight * (1 + counts).log())
