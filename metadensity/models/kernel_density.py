"""Kernel density on the support, whose width and shape are learned and follow the number of shots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metadensity.densities.support_mixture import MixtureDensity
from metadensity.likelihoods.levels import at_least_float32
from metadensity.models.support_mixture import SupportMixture


class KernelDensity(SupportMixture):
    """A ``SupportMixture`` whose kept pixels are moved: level l becomes x with probability ~ exp(-(|x - l| / h)^s).

    h is the width of the kernel, s its shape (2: a bell, 1: two slopes, less: a peak with long tails): the two numbers
    by which "Density estimation with LLMs" (arXiv 2410.05218) describes how a language model estimates a density in
    context, one kernel a sample. Both follow the number of shots, log h = h_0 + h_1 log2(1 + S), likewise s, and are
    learned. Exact: the kernel sums to one over the levels. Of two levels it is one number, the probability of a flip.
    """

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.width = nn.Parameter(torch.tensor([math.log(max(0.5, levels / 16)), -0.1]))
        self.shape = nn.Parameter(torch.zeros(2))

    def condition(self, support: Tensor) -> MixtureDensity:
        """One component a support image, and the prior."""
        mixture = super().condition(support)
        mixture.kernel = self.kernel(len(support)).exp()
        return mixture

    def kernel(self, shots: int) -> Tensor:
        """Log-probabilities ``(levels, levels)`` of what a level becomes, given so many supports."""
        more = math.log2(1 + shots)
        width, shape = (at_least_float32(each) for each in (self.width, self.shape))
        levels = torch.arange(self.levels, device=width.device, dtype=width.dtype)
        ratio = (levels - levels.unsqueeze(-1)).abs() / (width[0] + width[1] * more).exp()
        # 0 ** s has no gradient in s that is finite.
        powers = torch.where(ratio > 0, ratio.clamp(min=1e-6) ** (shape[0] + shape[1] * more).exp().clamp(max=8), 0.0)
        return (-powers).log_softmax(-1)
