"""Multiscale PixelCNN: a small image pixel by pixel, then doubled in size again and again, a group of pixels a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from metadensity.checks import require_sizes
from metadensity.densities.multiscale import MultiscaleDensity
from metadensity.densities.pixelcnn import AutoregressiveDensity
from metadensity.likelihoods import require_likelihood
from metadensity.model import FewShotModel
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.networks.upscaler import Upscaler
from metadensity.nn.attention import require_attention
from metadensity.nn.encoders import PatchEncoder, VectorEncoder


class MultiscalePixelCNN(FewShotModel):
    """An AttentionPixelCNN of a small image and a network a doubling (Reed et al. 2018, section 4.3, as recalled).

    The factorisation is that of Reed et al. 2017, "Parallel Multiscale Autoregressive Density Estimation". The paper's
    Online Products model: 8, 16 and 32 pixels a side, 12 layers in the base, 18 in each upscaler, 128 planes, 512 in
    the penultimate layer. Departure: every network reads the supports at full resolution, through patches of its own.

    base: the longest side of the smallest image. Sizes are halved, rounding up, while a side is longer than that and
        all have more than two places; an image that is small already is left to the base.
    upscaler_layers: layers of each upscaler. context: size of f(s); None means twice the planes.
    attention: "additive" or "dot". likelihood, components: see ``metadensity.likelihoods.build_head``.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        base: int = 8,
        layers: int = 12,
        upscaler_layers: int = 18,
        planes: int = 24,
        penultimate: int = 32,
        kernel_size: int = 3,
        context: int | None = None,
        attention: str = "dot",
        likelihood: str = "categorical",
        components: int = 10,
    ) -> None:
        context = 2 * planes if context is None else context
        shared: Any = {
            "planes": planes,
            "penultimate": penultimate,
            "kernel_size": kernel_size,
            "context": context,
            "attention": attention,
            "likelihood": likelihood,
            "components": components,
        }
        super().__init__(event_shape, levels, base=base, layers=layers, upscaler_layers=upscaler_layers, **shared)
        require_sizes(base=base, layers=layers, upscaler_layers=upscaler_layers, planes=planes, context=context)
        require_sizes(penultimate=penultimate, components=components)
        require_likelihood(likelihood)
        require_attention(attention)
        channels, *space = self.event_shape
        shapes = [(channels, *space)]
        while max(space) > base and min(space) > 2:
            space = [-(-size // 2) for size in space]
            shapes.insert(0, (channels, *space))
        self.encoder = VectorEncoder(self.event_shape, levels, planes, context)
        self.patches = nn.ModuleList(PatchEncoder(self.event_shape, levels, planes, planes, planes) for _ in shapes)
        self.base = PixelCNN(shapes[0], levels, layers=layers, **shared)
        self.upscalers = nn.ModuleList(
            Upscaler(shape, levels, layers=upscaler_layers, **shared) for shape in shapes[1:]
        )

    def condition(self, support: Tensor) -> MultiscaleDensity:
        """Encode the support into f(s), and keys and values for each network."""
        tasks, vector = support.shape[1], self.encoder(support)
        first, *patches = (encoder(support) for encoder in self.patches)
        base = AutoregressiveDensity(self.base, self.base.condition(tasks, vector, first), validate_args=False)
        networks = [cast(Upscaler, upscaler) for upscaler in self.upscalers]
        upscalers = [
            (network, network.condition(tasks, vector, given)) for network, given in zip(networks, patches, strict=True)
        ]
        return MultiscaleDensity(base, upscalers, self.event_shape, self.levels)
