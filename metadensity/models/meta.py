"""Meta PixelCNN: the support acts through the weights alone, by steps down a learned loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metadensity.adaptation.adaptive_model import AdaptiveModel, layer_pattern, require_feature_layer
from metadensity.adaptation.inner_loop import InnerLoop
from metadensity.adaptation.losses import LearnedLoss
from metadensity.model import pick
from metadensity.models.unconditional import UnconditionalPixelCNN
from metadensity.networks.config import PixelCNNConfig


class MetaPixelCNN(AdaptiveModel, options=[PixelCNNConfig, InnerLoop]):
    """A gated PixelCNN that adapts by gradient steps down a learned inner loss (Reed et al. 2018, section 3.3).

    theta' = theta - alpha * gradient of ||g(f_L(s; theta))||, one second-order step of alpha 0.1 as published; see
    ``LearnedLoss`` for what the paper leaves open. Layers after L do not reach the loss and are shared by all tasks.
    The defaults are the paper's Omniglot sizes.

    feature_layer: L, from 1 to ``layers``; None means the middle (not known from the paper).
    adapts: pattern over the names of the base's parameters; None: the layers up to L, all that reach the inner loss.
    The others: see ``PixelCNNConfig`` and ``InnerLoop``. With first_order, g gets no gradient and stays as it was
    initialised.
    """

    base: UnconditionalPixelCNN

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        feature_layer: int | None = None,
        adapts: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(event_shape, levels)
        sizes = self.take(PixelCNNConfig, options)
        last = require_feature_layer(feature_layer, sizes.layers)
        adapts = layer_pattern(0, last) if adapts is None else adapts
        self.loop = InnerLoop(**pick(InnerLoop, options), adapts=adapts)
        self.base = UnconditionalPixelCNN(self.event_shape, levels, **pick(PixelCNNConfig, options))
        self.inner_loss = LearnedLoss(sizes.planes, len(self.event_shape) - 1, last)
