"""Several autoregressive densities as one: each pixel from the mean of their conditionals."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from metadensity.densities.pixelcnn import PixelCNNDensity, RasterDensity
from metadensity.drawing import Draws
from metadensity.likelihoods.levels import logmeanexp, mixture_logits
from metadensity.sampling.cached import sample_ensemble


class EnsembleDensity(RasterDensity):
    """p(x_t | x_<t, support) = mean over the members of p_m(x_t | x_<t, support): a product of conditionals again.

    Not the mixture of the members' densities of whole images: here the members are weighed equally at every pixel,
    so an unlikely pixel costs a member nothing at the pixels that follow.
    members: at least one, of the same tasks and images.
    """

    def __init__(self, members: Sequence[PixelCNNDensity], validate_args: bool | None = None) -> None:
        self.members = list(members)
        first = self.members[0]
        super().__init__(first.tasks, first.event_shape, first.levels, validate_args)

    def _network_logits(self, pixels: Tensor) -> Tensor:
        return mixture_logits([member._network_logits(pixels) for member in self.members], 1)

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        return logmeanexp([member._conditional_log_probs(value) for member in self.members])

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.members[0].device

    @property
    def has_attention(self) -> bool:
        """See ``SequentialDensity.has_attention``."""
        return all(member.has_attention for member in self.members)

    def _attention_weights(self, value: Tensor) -> Tensor:
        return torch.stack([member._attention_weights(value) for member in self.members]).mean(0)

    def _sample_cached(self, draws: Draws) -> Tensor:
        with contextlib.ExitStack() as restored:
            for member in self.members:
                restored.enter_context(member.captured.restored())
            return sample_ensemble([(member.network, member.condition) for member in self.members], draws)
