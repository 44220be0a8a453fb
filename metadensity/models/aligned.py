"""Aligned PixelCNN: gates see what the supports look like at their own place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.model import FewShotModel
from metadensity.networks.config import AlignedConfig
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.convolution import CONV, is_plain, pointwise
from metadensity.nn.encoders import SupportPatchEncoder, SupportVectorEncoder
from metadensity.nn.support_map import SupportMap


class AlignedPixelCNN(FewShotModel, options=[AlignedConfig]):
    """An AttentionPixelCNN whose gates, in some layers and all stacks, are also biased by a map of the support.

    Drawings of one character lie roughly on one another, so most of what a support tells of a pixel stands at that
    pixel's own place and around it. A U-shaped net maps each support at full resolution (``SupportMap``), and a
    pointwise layer turns mean and maximum over the supports into a bias for each gate at each place. Attention
    remains for what does not lie in place. Our own; Reed et al. condition gates on one vector f(s) for all places.

    Options: see ``AlignedConfig``.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__(event_shape, levels)
        sizes = self.take(AlignedConfig, options)
        planes, space_dims = sizes.planes, len(self.event_shape) - 1
        self.encoder = SupportVectorEncoder(self.event_shape, levels, planes, sizes.context, sizes.support_norm)
        patches: Any = (self.event_shape, levels, planes, planes, planes, sizes.patch_stride, sizes.support_norm)
        self.patches = SupportPatchEncoder(*patches) if sizes.attention else None
        self.map = SupportMap(self.event_shape, levels, sizes.map_features, normed=sizes.support_norm)
        self.mapped = range(0, sizes.layers, sizes.map_every)
        biases = len(self.mapped) * (1 if sizes.frame_independent else space_dims) * 2 * planes
        self.to_gates = pointwise(2 * sizes.map_features, biases, space_dims, bias=False)
        self.network = PixelCNN(self.event_shape, levels, **sizes.network)

    def condition(self, support: Tensor) -> PixelCNNDensity:
        """Encode the support into f(s), the map, and keys and values."""
        vector, patches = self.encoder(support), self.patches(support) if self.patches is not None else None
        if self.network.prototypes is not None:
            vector = vector + self.network.prototypes.encode_support(support)
        given = self.network.conditioning(support.shape[1], vector, patches)
        mapped = self.map(support)
        # Gate by gate: the biases of all of them in one block would be hundreds of channels to write and to take apart.
        gates: Iterator[Tensor]
        if is_plain(self.to_gates, CONV[len(self.event_shape) - 1]):
            weights = self.to_gates.weight.flatten(1).split(2 * self.network.planes)
            gates = (F.linear(mapped.movedim(1, -1), weight).movedim(-1, 1) for weight in weights)
        else:
            gates = iter(self.to_gates(mapped).split(2 * self.network.planes, 1))
        biases = [
            [next(gates) + bias for bias in layer] if i in self.mapped else layer
            for i, layer in enumerate(given.biases)
        ]
        return PixelCNNDensity(self.network, dataclasses.replace(given, biases=biases))
