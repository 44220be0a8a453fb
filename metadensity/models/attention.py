"""Attention PixelCNN: every pixel looks at the patches of the support it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metadensity.checks import is_whole, require_sizes
from metadensity.densities.pixelcnn import AutoregressiveDensity
from metadensity.episode import EpisodeSource
from metadensity.likelihoods import require_likelihood
from metadensity.model import FewShotModel
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.attention import require_attention
from metadensity.nn.encoders import PatchEncoder, VectorEncoder


class AttentionPixelCNN(FewShotModel):
    """Gated PixelCNN with attention over all support patches (Reed et al. 2018, section 3.2).

    The middle layer's activations query the patches; what is read conditions the second half of the
    layers, beside f(s), which conditions them all.
    The defaults are the paper's Omniglot sizes: 12 layers of 24 planes, 32 in the penultimate layer.
    first_kernel: of the first layer, as the 7 of van den Oord et al. 2016; None: ``kernel_size``. Twice the longest
        side of an image less one sees all of its past at once.
    context: size of f(s); None means twice the planes.
    prototypes: learned images that pasts and supports are compared with, 0 for none as published; for small noisy
        images of classes that come again, see ``metadensity.nn.prototypes``.
    attention: "additive", as published, or "dot", scaled dot products.
    patch_stride: places between patches of the support; 4, as published, or 2 or 1, for what has to be found exactly.
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
        first_kernel: int | None = None,
        context: int | None = None,
        prototypes: int = 0,
        attention: str = "additive",
        patch_stride: int = 4,
        likelihood: str = "categorical",
        components: int = 10,
    ) -> None:
        context = 2 * planes if context is None else context
        sizes: Any = {
            "layers": layers,
            "planes": planes,
            "penultimate": penultimate,
            "kernel_size": kernel_size,
            "first_kernel": first_kernel,
        }
        reads: Any = {"context": context, "prototypes": prototypes, "attention": attention}
        head: Any = {"likelihood": likelihood, "components": components}
        super().__init__(event_shape, levels, **sizes, **reads, patch_stride=patch_stride, **head)
        require_sizes(layers=layers, planes=planes, penultimate=penultimate, context=context, components=components)
        if not is_whole(prototypes) or prototypes < 0:
            raise ValueError(f"prototypes={prototypes!r}; it must be a whole number, 0 for none.")
        require_likelihood(likelihood)
        require_attention(attention)
        self.encoder = VectorEncoder(self.event_shape, levels, planes, context)
        self.patches = PatchEncoder(self.event_shape, levels, planes, planes, planes, patch_stride)
        self.network = PixelCNN(self.event_shape, levels, **sizes, **reads, **head)

    def condition(self, support: Tensor) -> AutoregressiveDensity:
        """Encode the support into f(s), keys and values."""
        vector, patches = self.encoder(support), self.patches(support)
        if self.network.prototypes is not None:
            vector = vector + self.network.prototypes.describe(support)
        return AutoregressiveDensity(self.network, self.network.condition(support.shape[1], vector, patches))

    @torch.no_grad()
    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """Let prototypes that have not seen a data set begin as queries of the first episodes of ``source``."""
        prototypes = self.network.prototypes
        if prototypes is None or prototypes.filled:
            return
        batches = -(-prototypes.count // (tasks * queries))
        images = torch.cat([source.episode(i, tasks, 0, queries).query.flatten(0, 1) for i in range(batches)])
        prototypes.fill(images[: prototypes.count].to(prototypes.images.device))
