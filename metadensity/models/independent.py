"""Independent pixels: the simplest baseline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.densities.independent import IndependentDensity
from metadensity.model import FewShotModel


class IndependentPixels(FewShotModel):
    """One categorical distribution a pixel, the same for every task: the marginals of the training set."""

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.logits = nn.Parameter(torch.zeros(levels, *self.event_shape))

    def condition(self, support: Tensor) -> IndependentDensity:
        """The same for every support."""
        return IndependentDensity(self.logits[None], tasks=support.shape[1])
