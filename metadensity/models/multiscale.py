"""Multiscale PixelCNN: a small image pixel by pixel, then doubled in size again and again, a group of pixels a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from metadensity.densities.multiscale import MultiscaleDensity
from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.model import FewShotModel
from metadensity.networks.config import MultiscaleConfig
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.networks.upscaler import Upscaler
from metadensity.nn.encoders import SupportPatchEncoder, SupportVectorEncoder

_OF_BASE = ("first_kernel", "dilations", "frame_independent")


class MultiscalePixelCNN(FewShotModel, options=[MultiscaleConfig]):
    """An AttentionPixelCNN of a small image and a network a doubling (Reed et al. 2018, section 4.3, as recalled).

    The factorisation is that of Reed et al. 2017, "Parallel Multiscale Autoregressive Density Estimation". The paper's
    Online Products model: 8, 16 and 32 pixels a side, 12 layers in the base, 18 in each upscaler, 128 planes, 512 in
    the penultimate layer. Departure: every network reads the supports at full resolution, through patches of its own.

    Options: see ``MultiscaleConfig``. Sizes are halved, rounding up, while a side is longer than ``base`` and all have
    more than two places; an image that is small already is left to the base. ``layers``, ``first_kernel`` and
    ``dilations`` are of the base, which has no prototypes: those are compared with supports, whose images are not of
    its size.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__(event_shape, levels)
        sizes = self.take(MultiscaleConfig, options)
        planes, of_base = sizes.planes, sizes.network
        channels, *space = self.event_shape
        shapes = [(channels, *space)]
        while max(space) > sizes.base and min(space) > 2:
            space = [-(-size // 2) for size in space]
            shapes.insert(0, (channels, *space))
        self.encoder = SupportVectorEncoder(self.event_shape, levels, planes, sizes.context, sizes.support_norm)
        patches: Any = (self.event_shape, levels, planes, planes, planes, sizes.patch_stride, sizes.support_norm)
        self.patches = nn.ModuleList(SupportPatchEncoder(*patches) for _ in shapes)
        self.base = PixelCNN(shapes[0], levels, **of_base)
        of_upscalers = {name: each for name, each in of_base.items() if name not in _OF_BASE}
        of_upscalers["layers"] = sizes.upscaler_layers
        self.upscalers = nn.ModuleList(Upscaler(shape, levels, **of_upscalers) for shape in shapes[1:])

    def condition(self, support: Tensor) -> MultiscaleDensity:
        """Encode the support into f(s), and keys and values for each network."""
        tasks, vector = support.shape[1], self.encoder(support)
        first, *patches = (encoder(support) for encoder in self.patches)
        base = PixelCNNDensity(self.base, self.base.conditioning(tasks, vector, first), validate_args=False)
        networks = [cast(Upscaler, upscaler) for upscaler in self.upscalers]
        upscalers = [
            (network, network.conditioning(tasks, vector, given))
            for network, given in zip(networks, patches, strict=True)
        ]
        return MultiscaleDensity(base, upscalers, self.event_shape, self.levels)
