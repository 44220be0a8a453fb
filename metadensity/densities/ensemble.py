"""Several autoregressive densities as one: each pixel from the mean of their conditionals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from metadensity.densities.pixelcnn import AutoregressiveDensity
from metadensity.likelihoods.levels import log_mean, mean_logits
from metadensity.networks.conditioning import Condition
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.sampling.cached import sample_ensemble


class EnsembleDensity(AutoregressiveDensity):
    """p(x_t | x_<t, support) = mean over the members of p_m(x_t | x_<t, support): a product of conditionals again.

    Not the mixture of the members' densities of whole images: here the members are weighed equally at every pixel,
    so an unlikely pixel costs a member nothing at the pixels that follow.
    members: at least one, of the same tasks and images.
    network: stands for all of them; called as one, it gives the logits of their mean.
    """

    def __init__(self, members: Sequence[AutoregressiveDensity], validate_args: bool | None = None) -> None:
        self.members = list(members)
        network = cast(PixelCNN, EnsembleNetworks(self.members))
        super().__init__(network, Condition(self.members[0].tasks, [], None), validate_args)

    def _pixel_log_prob(self, value: Tensor) -> Tensor:
        return log_mean([member._pixel_log_prob(value) for member in self.members])

    @property
    def attends(self) -> bool:
        """See ``OrderedDensity.attends``."""
        return all(member.attends for member in self.members)

    def attention_weights(self, value: Tensor) -> Tensor:
        """The mean of the members'; see ``OrderedDensity.attention_weights``."""
        return torch.stack([member.attention_weights(value) for member in self.members]).mean(0)

    def _sample_cached(self, uniforms: Tensor, known: Tensor | None, temperature: float) -> Tensor:
        pairs = [(member.network, member.condition) for member in self.members]
        return sample_ensemble(pairs, uniforms, known, temperature)


class EnsembleNetworks:
    """The networks of several densities, called and asked as one ``PixelCNN`` is."""

    def __init__(self, members: Sequence[AutoregressiveDensity]) -> None:
        self._members = members
        first = members[0].network
        self.event_shape, self.levels, self.dims = first.event_shape, first.levels, first.dims
        self.layers, self.input, self.head = first.layers, first.input, first.head

    def __call__(self, pixels: Tensor, condition: Condition) -> Tensor:
        """Logits ``(samples * tasks, levels, C, *space)`` of ``(samples * tasks, C, *space)``, tasks fastest."""
        return mean_logits([member.network(pixels, member.condition) for member in self._members], 1)
