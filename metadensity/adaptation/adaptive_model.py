"""What models that adapt have in common: a base model, an inner loss and an inner loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from torch import Tensor

from metadensity.adaptation.adapted_density import adapted_density
from metadensity.adaptation.inner_loop import InnerLoop, Loss, adapted_parameters
from metadensity.adaptation.reptile import reptile_parameters
from metadensity.density import Density
from metadensity.episode import EpisodeSource
from metadensity.model import FewShotModel


class AdaptiveModel(FewShotModel):
    """A model whose density is that of ``base`` with each task's own parameters, found by the inner loop.

    base: the model that adapts. inner_loss: see ``metadensity.adaptation.losses``. loop: how it adapts; may be replaced
    at any time, for example to change the chunk: ``model.loop = dataclasses.replace(model.loop, chunk=4)``.
    Without supports there is no step: the density is that of ``base``.
    """

    base: FewShotModel
    inner_loss: Loss
    reptile: bool = False

    @property
    def loop(self) -> InnerLoop:
        """How it adapts. What replaces it is written into ``config``, so that a file builds the model with it."""
        return self._loop

    @loop.setter
    def loop(self, loop: InnerLoop) -> None:
        if hasattr(self, "_loop"):
            self.config |= {name: value for name, value in asdict(loop).items() if name in self.config}
        self._loop = loop

    def step_sizes(self) -> Mapping[str, Tensor] | None:
        """Learned step sizes by name of the base's parameter; None where ``loop.step_size`` is that of all."""
        return None

    def condition(self, support: Tensor) -> Density:
        """Adapt the base to each task's support."""
        if not support.numel() or not self.loop.steps:
            return self.base.condition(support)
        parameters = adapted_parameters(self.base, support, self.loop, self.inner_loss, self.step_sizes())
        if self.reptile:
            parameters = reptile_parameters(dict(self.base.named_parameters()), parameters)
        return adapted_density(self.base, parameters, support, self.loop)

    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """As the base does."""
        self.base.initialise(source, tasks, queries)


def layer_pattern(first: int, last: int) -> str:
    """A pattern for ``adapts`` that names layers ``first`` to ``last - 1`` of the network, counted from 0."""
    return rf"^network\.layers\.({'|'.join(map(str, range(first, last)))})\."


def require_feature_layer(feature_layer: int | None, layers: int) -> int:
    """The layer L of a learned inner loss: the middle one for None. Raises ValueError where there is no such layer."""
    chosen = layers // 2 if feature_layer is None else feature_layer
    if not isinstance(chosen, int) or not 1 <= chosen <= layers:
        raise ValueError(f"feature_layer={feature_layer!r}; name a layer from 1 to {layers}, or None for the middle.")
    return chosen
