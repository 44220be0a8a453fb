"""Aligned PixelCNN: gates see what the supports look like at their own place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from metadensity.checks import require_sizes
from metadensity.densities.pixelcnn import AutoregressiveDensity
from metadensity.likelihoods import require_likelihood
from metadensity.model import FewShotModel
from metadensity.networks.conditioning import Condition
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.attention import require_attention
from metadensity.nn.convolution import pointwise
from metadensity.nn.encoders import PatchEncoder, VectorEncoder
from metadensity.nn.support_map import SupportMap


class AlignedPixelCNN(FewShotModel):
    """An AttentionPixelCNN whose gates, in some layers and all stacks, are also biased by a map of the support.

    Drawings of one character lie roughly on one another, so most of what a support tells of a pixel stands at that
    pixel's own place and around it. A U-shaped net maps each support at full resolution (``SupportMap``), and a
    pointwise layer turns mean and maximum over the supports into a bias for each gate at each place. Attention
    remains for what does not lie in place. Our own; Reed et al. condition gates on one vector f(s) for all places.

    map_features: features of the map for each of mean and maximum. map_every: it reaches the first layer and every
        so manyth after it; others see it through these.
    attention, patch_stride: as in ``AttentionPixelCNN``; attention None to do without.
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
        attention: str | None = "dot",
        patch_stride: int = 4,
        map_features: int = 24,
        map_every: int = 3,
        likelihood: str = "categorical",
        components: int = 10,
    ) -> None:
        context = 2 * planes if context is None else context
        sizes: Any = {"layers": layers, "planes": planes, "penultimate": penultimate, "kernel_size": kernel_size}
        head: Any = {"likelihood": likelihood, "components": components}
        ours: Any = {
            "context": context,
            "attention": attention,
            "patch_stride": patch_stride,
            "map_features": map_features,
            "map_every": map_every,
        }
        super().__init__(event_shape, levels, **sizes, **ours, **head)
        require_sizes(
            layers=layers,
            planes=planes,
            penultimate=penultimate,
            context=context,
            map_features=map_features,
            map_every=map_every,
            components=components,
        )
        require_likelihood(likelihood)
        if attention is not None:
            require_attention(attention)
        dims = len(self.event_shape) - 1
        self.encoder = VectorEncoder(self.event_shape, levels, planes, context)
        patches: Any = (self.event_shape, levels, planes, planes, planes, patch_stride)
        self.patches = PatchEncoder(*patches) if attention else None
        self.map = SupportMap(self.event_shape, levels, map_features)
        self.mapped = range(0, layers, map_every)
        self.to_gates = pointwise(2 * map_features, len(self.mapped) * dims * 2 * planes, dims, bias=False)
        self.network = PixelCNN(self.event_shape, levels, **sizes, context=context, attention=attention, **head)

    def condition(self, support: Tensor) -> AutoregressiveDensity:
        """Encode the support into f(s), the map, and keys and values."""
        patches = self.patches(support) if self.patches is not None else None
        given = self.network.condition(support.shape[1], self.encoder(support), patches)
        features = self.map(support).movedim(1, -1)
        weights = iter(self.to_gates.weight.flatten(1).split(2 * self.network.planes))
        # Gate by gate: the biases of all of them in one block would be hundreds of channels to write and to take apart.
        biases = [
            [F.linear(features, next(weights)).movedim(-1, 1) + bias for bias in layer] if i in self.mapped else layer
            for i, layer in enumerate(given.biases)
        ]
        return AutoregressiveDensity(self.network, Condition(given.tasks, biases, given.memory))
