"""Meta PixelCNN: the support acts through the weights alone, by steps down a learned loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metadensity.adaptation.adaptive_model import AdaptiveModel, layer_pattern, require_feature_layer
from metadensity.adaptation.inner_loop import InnerLoop
from metadensity.adaptation.losses import LearnedLoss
from metadensity.checks import require_sizes
from metadensity.likelihoods import require_likelihood
from metadensity.models.unconditional import UnconditionalPixelCNN


class MetaPixelCNN(AdaptiveModel):
    """A gated PixelCNN that adapts by gradient steps down a learned inner loss (Reed et al. 2018, section 3.3).

    theta' = theta - alpha * gradient of ||g(f_L(s; theta))||, one second-order step of alpha 0.1 as published; see
    ``LearnedLoss`` for what the paper leaves open. Layers after L do not reach the loss and are shared by all tasks.
    The defaults are the paper's Omniglot sizes: 12 layers of 24 planes, 32 in the penultimate layer.

    feature_layer: L, from 1 to ``layers``; None means the middle (not known from the paper).
    steps, step_size, first_order, way, chunk, rematerialise: see ``InnerLoop``. With first_order, g gets no gradient
    and stays as it was initialised.
    """

    base: UnconditionalPixelCNN

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        layers: int = 12,
        planes: int = 24,
        penultimate: int = 32,
        kernel_size: int = 3,
        feature_layer: int | None = None,
        steps: int = 1,
        step_size: float = 0.1,
        first_order: bool = False,
        likelihood: str = "categorical",
        components: int = 10,
        way: str = "auto",
        chunk: int | None = None,
        rematerialise: bool = False,
    ) -> None:
        sizes: Any = {"layers": layers, "planes": planes, "penultimate": penultimate, "kernel_size": kernel_size}
        inner: Any = {"steps": steps, "step_size": step_size, "first_order": first_order}
        run: Any = {"way": way, "chunk": chunk, "rematerialise": rematerialise}
        head: Any = {"likelihood": likelihood, "components": components}
        super().__init__(event_shape, levels, **sizes, feature_layer=feature_layer, **inner, **head, **run)
        require_likelihood(likelihood)
        require_sizes(layers=layers, planes=planes, penultimate=penultimate, components=components)
        last = require_feature_layer(feature_layer, layers)
        self.loop = InnerLoop(**inner, **run, adapts=layer_pattern(0, last))
        self.base = UnconditionalPixelCNN(self.event_shape, levels, **sizes, **head)
        self.inner_loss = LearnedLoss(planes, len(self.event_shape) - 1, last)
