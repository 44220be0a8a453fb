"""Gated PixelCNN that never looks at the support: the baseline without conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from metadensity.checks import require_sizes
from metadensity.densities.pixelcnn import AutoregressiveDensity
from metadensity.likelihoods import require_likelihood
from metadensity.model import FewShotModel
from metadensity.networks.pixelcnn import PixelCNN


class UnconditionalPixelCNN(FewShotModel):
    """A gated PixelCNN (van den Oord et al. 2016) of all tasks together; the same density for every support.

    likelihood, components: of a pixel given its past, see ``metadensity.likelihoods.build_head``.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        layers: int = 12,
        planes: int = 24,
        penultimate: int = 32,
        kernel_size: int = 3,
        likelihood: str = "categorical",
        components: int = 10,
    ) -> None:
        sizes: Any = {"layers": layers, "planes": planes, "penultimate": penultimate, "kernel_size": kernel_size}
        head: Any = {"likelihood": likelihood, "components": components}
        super().__init__(event_shape, levels, **sizes, **head)
        require_sizes(layers=layers, planes=planes, penultimate=penultimate, components=components)
        require_likelihood(likelihood)
        self.network = PixelCNN(self.event_shape, levels, **sizes, **head)

    def condition(self, support: Tensor) -> AutoregressiveDensity:
        """The same for every support."""
        return AutoregressiveDensity(self.network, self.network.condition(support.shape[1]))
