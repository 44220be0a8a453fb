"""Attention Meta PixelCNN: the support is read by attention, and adapts the weights as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metadensity.adaptation.adaptive_model import AdaptiveModel, layer_pattern, require_feature_layer
from metadensity.adaptation.inner_loop import InnerLoop
from metadensity.adaptation.losses import LearnedLoss, support_nll
from metadensity.checks import require_sizes
from metadensity.likelihoods import require_likelihood
from metadensity.models.attention import AttentionPixelCNN
from metadensity.nn.attention import require_attention


class AttentionMetaPixelCNN(AdaptiveModel):
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
    attention, context: see ``AttentionPixelCNN``. The others: see ``InnerLoop``.
    """

    base: AttentionPixelCNN

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        layers: int = 12,
        planes: int = 24,
        penultimate: int = 32,
        kernel_size: int = 3,
        context: int | None = None,
        attention: str = "additive",
        inner: str = "learned",
        feature_layer: int | None = None,
        steps: int = 1,
        step_size: float = 0.1,
        first_order: bool = False,
        adapts: str | None = None,
        likelihood: str = "categorical",
        components: int = 10,
        way: str = "auto",
        chunk: int | None = None,
        rematerialise: bool = False,
    ) -> None:
        context = 2 * planes if context is None else context
        sizes: Any = {"layers": layers, "planes": planes, "penultimate": penultimate, "kernel_size": kernel_size}
        reads: Any = {"context": context, "attention": attention}
        step: Any = {"steps": steps, "step_size": step_size, "first_order": first_order}
        run: Any = {"way": way, "chunk": chunk, "rematerialise": rematerialise}
        chosen: Any = {"inner": inner, "feature_layer": feature_layer}
        head: Any = {"likelihood": likelihood, "components": components}
        super().__init__(event_shape, levels, **sizes, **reads, **chosen, **step, adapts=adapts, **head, **run)
        require_likelihood(likelihood)
        require_sizes(layers=layers, planes=planes, penultimate=penultimate, components=components, context=context)
        require_attention(attention)
        if inner not in ("learned", "support"):
            raise ValueError(f"inner={inner!r}; choose 'learned' (as published) or 'support' (its likelihood).")
        last = require_feature_layer(feature_layer, layers)
        if adapts is None:
            reached = rf"{layer_pattern(0, last)}|^encoder\."
            if last > layers // 2:
                reached += r"|^patches\.|^network\.attention\."
            adapts = reached if inner == "learned" else ""
        self.loop = InnerLoop(**step, adapts=adapts, **run)
        self.base = AttentionPixelCNN(self.event_shape, levels, **sizes, **reads, **head)
        self.inner_loss = LearnedLoss(planes, len(self.event_shape) - 1, last) if inner == "learned" else support_nll
