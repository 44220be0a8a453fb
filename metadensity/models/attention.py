"""Attention PixelCNN: every pixel looks at the patches of the support it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.episode import EpisodeSource
from metadensity.model import FewShotModel
from metadensity.networks.config import AttentionConfig
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.encoders import SupportPatchEncoder, SupportVectorEncoder


class AttentionPixelCNN(FewShotModel, options=[AttentionConfig]):
    """Gated PixelCNN with attention over all support patches (Reed et al. 2018, section 3.2).

    The middle layer's activations query the patches; what is read conditions the second half of the
    layers, beside f(s), which conditions them all.
    The defaults are the paper's Omniglot sizes. Options: see ``AttentionConfig``.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__(event_shape, levels)
        sizes = self.take(AttentionConfig, options)
        planes = sizes.planes
        self.encoder = SupportVectorEncoder(self.event_shape, levels, planes, sizes.context, sizes.support_norm)
        patches: Any = (self.event_shape, levels, planes, planes, planes, sizes.patch_stride, sizes.support_norm)
        self.patches = SupportPatchEncoder(*patches)
        self.network = PixelCNN(self.event_shape, levels, **sizes.network)

    def condition(self, support: Tensor) -> PixelCNNDensity:
        """Encode the support into f(s), keys and values."""
        vector, patches = self.encoder(support), self.patches(support)
        if self.network.prototypes is not None:
            vector = vector + self.network.prototypes.encode_support(support)
        return PixelCNNDensity(self.network, self.network.conditioning(support.shape[1], vector, patches))

    @torch.no_grad()
    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """As every model, and let prototypes begin as queries of the first episodes of ``source``."""
        super().initialise(source, tasks, queries)
        prototypes = self.network.prototypes
        if prototypes is None or prototypes.filled:
            return
        batches = -(-prototypes.count // (tasks * queries))
        images = torch.cat([source.episode(i, tasks, 0, queries).query.flatten(0, 1) for i in range(batches)])
        prototypes.initialise_from(images[: prototypes.count].to(prototypes.images.device))
