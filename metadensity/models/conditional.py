"""Conditional PixelCNN: the support acts through one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from metadensity.checks import require_sizes
from metadensity.densities.pixelcnn import AutoregressiveDensity
from metadensity.likelihoods import require_likelihood
from metadensity.model import FewShotModel
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.encoders import VectorEncoder


class ConditionalPixelCNN(FewShotModel):
    """Gated PixelCNN whose gates are biased by f(s), one vector of the support (Reed et al. 2018, section 3.1).

    The defaults are the paper's Omniglot sizes: 12 layers of 24 planes, 32 in the penultimate layer.
    context: size of f(s); None means twice the planes.
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
        context: int | None = None,
        likelihood: str = "categorical",
        components: int = 10,
    ) -> None:
        context = 2 * planes if context is None else context
        sizes: Any = {"layers": layers, "planes": planes, "penultimate": penultimate, "kernel_size": kernel_size}
        head: Any = {"likelihood": likelihood, "components": components}
        super().__init__(event_shape, levels, **sizes, context=context, **head)
        require_sizes(layers=layers, planes=planes, penultimate=penultimate, context=context, components=components)
        require_likelihood(likelihood)
        self.encoder = VectorEncoder(self.event_shape, levels, planes, context)
        self.network = PixelCNN(self.event_shape, levels, **sizes, context=context, **head)

    def condition(self, support: Tensor) -> AutoregressiveDensity:
        """Encode the support into f(s)."""
        return AutoregressiveDensity(self.network, self.network.condition(support.shape[1], self.encoder(support)))
