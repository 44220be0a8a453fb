"""Ensemble of PixelCNNs of one kind, trained apart, that speak as one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from metadensity.checks import require_sizes
from metadensity.densities.ensemble import EnsembleDensity
from metadensity.episode import EpisodeSource
from metadensity.model import FewShotModel
from metadensity.networks.config import AttentionConfig
from metadensity.networks.pixelcnn import PixelCNN


class EnsemblePixelCNN(FewShotModel, options=[AttentionConfig]):
    """Several models of one kind and the same sizes; each pixel is drawn from the mean of their conditionals.

    Nets that were trained apart make different mistakes on classes they have not seen, and the mean makes fewer. Our
    own; Reed et al. report single nets. ``EnsemblePixelCNN.of`` makes one of trained models; a new one can be trained
    as any other model, but its members then learn together, and lean on one another.

    members: how many. member: which kind, a name in ``metadensity.models.MODELS`` of a model with one PixelCNN. The
        others: what that kind takes, of attention nets see ``AttentionConfig``.
    """

    kinds: ClassVar[Mapping[str, type[FewShotModel]]] = {}  # MODELS, which this file cannot import

    def __init__(
        self, event_shape: Sequence[int], levels: int, *, members: int = 2, member: str = "attention", **options: Any
    ) -> None:
        super().__init__(event_shape, levels)
        require_sizes(members=members)
        kind = self._kind(member)
        self.members = nn.ModuleList(kind(self.event_shape, levels, **options) for _ in range(members))
        first = cast(FewShotModel, self.members[0])
        if not isinstance(getattr(first, "network", None), PixelCNN):
            raise ValueError(f"member={member!r}; choose a model with one PixelCNN, such as 'attention'.")
        self.config |= {name: value for name, value in first.config.items() if name in self.config}

    @classmethod
    def _kind(cls, member: str) -> type[FewShotModel]:
        if member not in cls.kinds or issubclass(cls.kinds[member], EnsemblePixelCNN):
            known = ", ".join(name for name, kind in cls.kinds.items() if not issubclass(kind, EnsemblePixelCNN))
            raise ValueError(f"member={member!r}; choose one of {known}.")
        return cls.kinds[member]

    @classmethod
    def signature(cls, options: Mapping[str, Any]) -> inspect.Signature:
        """The number of members and their kind, and what that kind takes."""
        own = [each for each in cls.__signature__.parameters.values() if each.name in ("members", "member")]
        member = options.get("member", cls.__signature__.parameters["member"].default)
        takes = cls._kind(member).__signature__
        return takes.replace(parameters=[*takes.parameters.values(), *own])

    @classmethod
    def of(cls, models: Sequence[FewShotModel]) -> EnsemblePixelCNN:
        """The ensemble of trained models, whose weights are copied.

        Raises TypeError for models of several kinds or of one that is not listed, ValueError for none, for a kind
        without one PixelCNN, and where their arguments differ.
        """
        if not models:
            raise ValueError("models is empty; give the trained models that are to be one.")
        member = next((name for name, kind in cls.kinds.items() if kind is type(models[0])), None)
        if member is None:
            raise TypeError(f"models holds one of type {type(models[0]).__name__}, which is not listed in MODELS.")
        for model in models:
            if type(model) is not type(models[0]):
                raise TypeError(
                    f"models holds one of type {type(model).__name__} beside one of type {type(models[0]).__name__}; "
                    "give models of one kind."
                )
            if odd := {key for key, value in models[0].config.items() if model.config[key] != value}:
                key = min(odd)
                raise ValueError(
                    f"models differ in {key}: {models[0].config[key]!r} and {model.config[key]!r}. Give models built "
                    "with the same arguments."
                )
        ensemble = cls(members=len(models), member=member, **models[0].config)
        for one, model in zip(ensemble.members, models, strict=True):
            one.load_state_dict(model.state_dict())
        return ensemble.train(models[0].training)

    def condition(self, support: Tensor) -> EnsembleDensity:
        """Encode the support for each member."""
        return EnsembleDensity([cast(Any, member).condition(support) for member in self.members])

    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """As each member does."""
        for member in self.members:
            cast(FewShotModel, member).initialise(source, tasks, queries)
