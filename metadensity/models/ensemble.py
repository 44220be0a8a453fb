"""Ensemble of Attention PixelCNNs, trained apart, that speak as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from metadensity.checks import require_sizes
from metadensity.densities.ensemble import EnsembleDensity
from metadensity.episode import EpisodeSource
from metadensity.model import FewShotModel
from metadensity.models.attention import AttentionPixelCNN


class EnsemblePixelCNN(FewShotModel):
    """Several AttentionPixelCNNs of the same sizes; each pixel is drawn from the mean of their conditionals.

    Nets that were trained apart make different mistakes on classes they have not seen, and the mean makes fewer. Our
    own; Reed et al. report single nets. ``EnsemblePixelCNN.of`` makes one of trained models; a new one can be trained
    as any other model, but its members then learn together, and lean on one another.

    members: how many. The others: of each member, see ``AttentionPixelCNN``.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        members: int = 2,
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
        require_sizes(members=members)
        each: Any = {
            "layers": layers,
            "planes": planes,
            "penultimate": penultimate,
            "kernel_size": kernel_size,
            "first_kernel": first_kernel,
            "context": context,
            "prototypes": prototypes,
            "attention": attention,
            "patch_stride": patch_stride,
            "likelihood": likelihood,
            "components": components,
        }
        super().__init__(event_shape, levels, members=members, **each)
        self.members = nn.ModuleList(AttentionPixelCNN(self.event_shape, levels, **each) for _ in range(members))

    @classmethod
    def of(cls, models: Sequence[FewShotModel]) -> EnsemblePixelCNN:
        """The ensemble of trained models, whose weights are copied.

        Raises TypeError for one that is no AttentionPixelCNN, ValueError for none, and where their arguments differ.
        """
        if not models:
            raise ValueError("models is empty; give the trained models that are to be one.")
        for model in models:
            if type(model) is not AttentionPixelCNN:
                raise TypeError(f"models holds one of type {type(model).__name__}; give AttentionPixelCNNs.")
            if odd := {key for key, value in models[0].config.items() if model.config[key] != value}:
                key = min(odd)
                raise ValueError(
                    f"models differ in {key}: {models[0].config[key]!r} and {model.config[key]!r}. Give models built "
                    "with the same arguments."
                )
        ensemble = cls(members=len(models), **models[0].config)
        for member, model in zip(ensemble.members, models, strict=True):
            member.load_state_dict(model.state_dict())
        return ensemble.train(models[0].training)

    def condition(self, support: Tensor) -> EnsembleDensity:
        """Encode the support for each member."""
        return EnsembleDensity([cast(AttentionPixelCNN, member).condition(support) for member in self.members])

    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """As each member does."""
        for member in self.members:
            cast(AttentionPixelCNN, member).initialise(source, tasks, queries)
