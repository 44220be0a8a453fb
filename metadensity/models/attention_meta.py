"""Attention Meta PixelCNN: the support is read by attention, and adapts the weights as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metadensity.adaptation.adaptive_model import AdaptiveModel, layer_pattern, require_feature_layer
from metadensity.adaptation.inner_loop import InnerLoop
from metadensity.adaptation.losses import LearnedLoss, support_nll
from metadensity.model import pick
from metadensity.models.attention import AttentionPixelCNN
from metadensity.networks.config import AttentionConfig


class AttentionMetaPixelCNN(AdaptiveModel, options=[AttentionConfig, InnerLoop]):
    """An AttentionPixelCNN whose weights adapt to the support it reads (Reed et al. 2018, section 3.3).

    The inner loss scores each support image given the others. The paper found that combining the two routes naively
    did not help; naively means here ``inner="learned"`` with everything that reaches the loss adapting, the defaults.
    Other combinations:
    - adapt the late layers alone: ``adapts=layer_pattern(layers // 2, layers)`` of metadensity.adaptation, with
      ``inner="support"`` or a late ``feature_layer``;
    - train attention first: ``model.base.load_state_dict(trained.state_dict())`` from an AttentionPixelCNN of the same
      sizes, and meta-train on.

    inner: "learned" (``LearnedLoss`` on layer ``feature_layer``, None: the middle) or "support" (the NLL).
    adapts: pattern over the names of the base's parameters; None: all that reach the inner loss.
    The others: see ``AttentionConfig`` and ``InnerLoop``.
    """

    base: AttentionPixelCNN

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        inner: str = "learned",
        feature_layer: int | None = None,
        adapts: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(event_shape, levels)
        sizes = self.take(AttentionConfig, options)
        if inner not in ("learned", "support"):
            raise ValueError(f"inner={inner!r}; choose 'learned' (as published) or 'support' (its likelihood).")
        last = require_feature_layer(feature_layer, sizes.layers)
        if adapts is None:
            reached = rf"{layer_pattern(0, last)}|^encoder\."
            if sizes.prototypes:
                reached += r"|^network\.prototypes\.(images|bias|classes\.(values|describe))"
            if last > sizes.layers // 2:
                reached += r"|^patches\.|^network\.attention\."
            adapts = reached if inner == "learned" else ""
        self.loop = InnerLoop(**pick(InnerLoop, options), adapts=adapts)
        self.base = AttentionPixelCNN(self.event_shape, levels, **pick(AttentionConfig, options))
        learned = inner == "learned"
        self.inner_loss = LearnedLoss(sizes.planes, len(self.event_shape) - 1, last) if learned else support_nll
