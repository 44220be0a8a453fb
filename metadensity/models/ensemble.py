"""Ensemble of models, of one kind or of several, that were trained apart and speak as one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from metadensity.checks import real_places, require_sizes
from metadensity.densities.ensemble import WAYS, ensemble_density
from metadensity.densities.ensemble_weights import Evidence
from metadensity.density import Density
from metadensity.episode import Episode, EpisodeSource
from metadensity.model import FewShotModel
from metadensity.networks.config import AttentionConfig
from metadensity.networks.pixelcnn import PixelCNN

WEIGHTS = ("equal", "fitted", "leave_one_out")


class EnsemblePixelCNN(FewShotModel, options=[AttentionConfig]):
    """Several models as one exact density; by default PixelCNNs of one kind, each pixel from the mean of conditionals.

    Nets that were trained apart make different mistakes on classes they have not seen, and together they make fewer.
    Our own; Reed et al. report single nets. ``EnsemblePixelCNN.of`` makes one of trained models; a new one can be
    trained as any other model, but its members then learn together, and lean on one another.

    members: how many of the kind ``member``; or a list, ``[{"name": "attention", "layers": 8}, {"name": "ngram"}]``, of
        models of any kinds, each by its name in ``metadensity.models.MODELS`` with its own options.
    member: which kind, where they are of one: a model with one PixelCNN. The others: what that kind takes, of
        attention nets see ``AttentionConfig``.
    combine: the "mean" of conditionals, their "product", or the "mixture" of whole images, which alone takes members of
        any order of pixels, and bounds; see ``metadensity.densities.ensemble.ensemble_density``.
    weights: "equal"; "fitted", a row for each number of shots, which ``fit_weights`` learns; "leave_one_out", for each
        task those under which each of its supports is likeliest given the others, from the fitted ones on, which
        stand where there is one support or none; or a list of fixed ones, of a product the exponents.
    anchors: the numbers of shots that have a row; between two of them weights are interpolated, in log(1 + shots).
    strength: how many supports the fitted weights count for, beside those of a task, where one is left out.
    """

    kinds: ClassVar[Mapping[str, type[FewShotModel]]] = {}  # MODELS, which this file cannot import

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        members: int | Sequence[Mapping[str, Any]] = 2,
        member: str = "attention",
        combine: str = "mean",
        weights: str | Sequence[float] = "equal",
        anchors: Sequence[int] = (0, 1, 2, 4, 8),
        strength: float = 16.0,
        **options: Any,
    ) -> None:
        super().__init__(event_shape, levels)
        if isinstance(members, int):
            require_sizes(members=members)
            kind = self._kind(member)
            self.members = nn.ModuleList(kind(self.event_shape, levels, **options) for _ in range(members))
            first = cast(FewShotModel, self.members[0])
            if not isinstance(getattr(first, "network", None), PixelCNN):
                raise ValueError(f"member={member!r}; choose a model with one PixelCNN, such as 'attention'.")
            self.config |= {name: value for name, value in first.config.items() if name in self.config}
        else:
            if not members:
                raise ValueError("members is empty; give the models that are to be one, or their number.")
            made = [self._built(described) for described in members]
            self.members = nn.ModuleList(made)
            names = [str(described["name"]) for described in members]
            self.config["members"] = [_described(*each) for each in zip(names, made, strict=True)]
        if combine not in WAYS:
            raise ValueError(f"combine={combine!r}; choose one of {', '.join(WAYS)}.")
        self.combine, self.weights = combine, weights if isinstance(weights, str) else [float(each) for each in weights]
        self.anchors, self.strength = [int(each) for each in anchors], float(strength)
        if not self.anchors or sorted(set(self.anchors)) != self.anchors or self.anchors[0] < 0:
            raise ValueError(f"anchors={list(anchors)}; give numbers of shots, ascending, of 0 or more.")
        if not 0 < self.strength < math.inf:
            raise ValueError(f"strength={strength!r}; give a positive number of supports.")
        if isinstance(self.weights, str):
            if self.weights not in WEIGHTS:
                raise ValueError(f"weights={weights!r}; choose one of {', '.join(WEIGHTS)}, or give a list of numbers.")
        elif len(self.weights) != len(self.members) or not all(0 < each < math.inf for each in self.weights):
            raise ValueError(f"weights={weights}; give {len(self.members)} positive numbers, one for each member.")
        if self.weights in WEIGHTS[1:]:
            rows = torch.full((len(self.anchors), len(self.members)), -math.log(len(self.members)))
            self.log_weights = nn.Parameter(rows)

    @classmethod
    def _kind(cls, member: str) -> type[FewShotModel]:
        if member not in cls.kinds or issubclass(cls.kinds[member], EnsemblePixelCNN):
            known = ", ".join(name for name, kind in cls.kinds.items() if not issubclass(kind, EnsemblePixelCNN))
            raise ValueError(f"member={member!r}; choose one of {known}.")
        return cls.kinds[member]

    def _built(self, described: Mapping[str, Any]) -> FewShotModel:
        if not isinstance(described, Mapping) or described.get("name") not in self.kinds:
            raise ValueError(
                f"members has {described!r}; give each as a mapping with its name, one of {', '.join(self.kinds)}, and "
                "its options."
            )
        kind, options = self.kinds[described["name"]], {key: each for key, each in described.items() if key != "name"}
        return kind(**kind.complete({"event_shape": self.event_shape, "levels": self.levels, **options}))

    @classmethod
    def signature(cls, options: Mapping[str, Any]) -> inspect.Signature:
        """The number of members and their kind, and what that kind takes; of a list of members, our own alone."""
        ours = [
            each for name, each in inspect.signature(cls.__init__).parameters.items() if name not in ("self", "options")
        ]
        if not isinstance(options.get("members", 0), int):
            return inspect.Signature([each for each in ours if each.name != "member"])
        own = [each for each in ours if each.name not in ("event_shape", "levels")]
        takes = cls._kind(options.get("member", cls.__signature__.parameters["member"].default)).__signature__
        return takes.replace(parameters=[*takes.parameters.values(), *own])

    @classmethod
    def of(
        cls,
        models: Sequence[FewShotModel],
        combine: str = "mean",
        weights: str | Sequence[float] = "equal",
        **settings: Any,
    ) -> EnsemblePixelCNN:
        """The ensemble of trained models, whose weights are copied. settings: anchors, strength.

        Raises TypeError for a model of a kind that is not listed, ValueError for none, and for models of different
        images.
        """
        if not models:
            raise ValueError("models is empty; give the trained models that are to be one.")
        names = [next((name for name, kind in cls.kinds.items() if kind is type(model)), None) for model in models]
        if None in names:
            odd = type(models[names.index(None)]).__name__
            raise TypeError(f"models holds one of type {odd}, which is not listed in MODELS.")
        first = models[0]
        for model in models:
            if (model.event_shape, model.levels) != (first.event_shape, first.levels):
                raise ValueError(
                    f"models are of images {first.event_shape} of {first.levels} levels and {model.event_shape} of "
                    f"{model.levels}; give models of the same images."
                )
        alike = all(type(model) is type(first) and model.config == first.config for model in models)
        own: dict[str, Any] = {"combine": combine, "weights": weights, **settings}
        if alike and isinstance(getattr(first, "network", None), PixelCNN):
            ensemble = cls(members=len(models), member=str(names[0]), **first.config, **own)
        else:
            described = [_described(str(name), model) for name, model in zip(names, models, strict=True)]
            ensemble = cls(first.event_shape, first.levels, members=described, **own)
        for one, model in zip(ensemble.members, models, strict=True):
            one.load_state_dict(model.state_dict())
        return ensemble.train(first.training)

    def condition(self, support: Tensor) -> Density:
        """Condition each member on the support."""
        return self._conditioned(support, None)

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> Density:
        """The same, of members that read lengths."""
        return self._conditioned(support, lengths)

    def _conditioned(self, support: Tensor, lengths: Tensor | None) -> Density:
        return ensemble_density(self._densities(support, lengths), self.combine, self._weights(support, lengths))

    def _densities(self, support: Tensor, lengths: Tensor | None) -> list[Density]:
        members = [cast(FewShotModel, member) for member in self.members]
        if lengths is None:
            return [member.condition(support) for member in members]
        return [member.condition_on_lengths(support, lengths) for member in members]

    def weights_at(self, shots: int) -> Tensor | None:
        """Logarithms ``(members,)`` of the weights at a number of shots, of a product of exponents; None: all equal."""
        if self.weights == "equal":
            return None
        if not isinstance(self.weights, str):
            given = torch.tensor(self.weights, device=next(self.parameters()).device, dtype=torch.float64)
            return (given if self.combine == "product" else given / given.sum()).log()
        place = [math.log(1 + each) for each in self.anchors]
        here = min(max(math.log(1 + shots), place[0]), place[-1])
        above = next(i for i, each in enumerate(place) if each >= here)
        below = max(above - 1, 0)
        part = (here - place[below]) / (place[above] - place[below]) if above > below else 1.0
        rows = self.log_weights.to(torch.promote_types(self.log_weights.dtype, torch.float32))
        found = torch.lerp(rows[below], rows[above], part)
        return found if self.combine == "product" else found.log_softmax(-1)

    def _weights(self, support: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Logarithms of each task's weights, ``(tasks, members)``."""
        shots, tasks = support.shape[:2]
        start = self.weights_at(shots)
        if start is None:
            return None
        if self.weights != "leave_one_out" or shots < 2:
            return start.expand(tasks, -1)
        return self.left_out(support, lengths).best(start, self.strength)

    @torch.no_grad()
    def left_out(self, support: Tensor, lengths: Tensor | None = None) -> Evidence:
        """What the members say of each support given the others of its task; at least two of them."""
        shots = len(support)
        others = torch.tensor([[j for j in range(shots) if j != i] for i in range(shots)], device=support.device).T
        rest = support[others].flatten(1, 2)  # (S - 1, S * tasks, C, *space)
        few = None if lengths is None else lengths[others].flatten(1, 2)
        value, real = support.flatten(0, 1).unsqueeze(0), None
        if lengths is not None:
            real = real_places(lengths.flatten().unsqueeze(0), support.shape[-1])
        return Evidence.of(self._densities(rest, few), self.combine, value, real).unfolded(shots)

    @torch.no_grad()
    def fit_weights(self, episodes: Iterable[Episode]) -> dict[int, list[float]]:
        """Let the weights at each of the ``anchors`` be those under which the queries are likeliest; returns them.

        episodes: of classes that no member was trained on, so of validation, and never those of a test; of as many
        supports as the anchors say, for each of them. What the members say of all queries is held in memory, of a
        product for all levels.
        Raises ValueError for weights that are not fitted, and where an anchor has no episode or an episode no anchor.
        """
        if self.weights not in WEIGHTS[1:]:
            raise ValueError(f"weights={self.weights!r}; build the ensemble with weights='fitted' or 'leave_one_out'.")
        found: dict[int, list[Evidence]] = {shots: [] for shots in self.anchors}
        for episode in episodes:
            shots = len(episode.support)
            if shots not in found:
                raise ValueError(f"An episode has {shots} supports; the anchors are {self.anchors}.")
            members, real = self._densities(episode.support, episode.support_lengths), None
            if episode.query_lengths is not None:
                real = real_places(episode.query_lengths, episode.query.shape[-1])
            found[shots].append(Evidence.of(members, self.combine, episode.query, real))
        if missing := [shots for shots, parts in found.items() if not parts]:
            raise ValueError(f"There are no episodes with {missing} supports, which anchors={self.anchors} asks for.")
        equal = torch.full_like(self.log_weights[0], -math.log(len(self.members)))
        for row, parts in enumerate(found.values()):
            self.log_weights[row] = Evidence.joined(parts).best(equal, strength=1.0, steps=60)[0]
        return self.weights_by_shots()

    def weights_by_shots(self) -> dict[int, list[float]]:
        """The weights of the members at each of the anchors; of a product the exponents."""
        equal = [1 / len(self.members)] * len(self.members)
        found = {shots: self.weights_at(shots) for shots in self.anchors}
        return {shots: equal if each is None else each.exp().tolist() for shots, each in found.items()}

    @property
    def member_names(self) -> list[str]:
        """The kind of each member, by its name in ``MODELS``."""
        return [next(name for name, kind in self.kinds.items() if kind is type(each)) for each in self.members]

    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """As each member does."""
        for member in self.members:
            cast(FewShotModel, member).initialise(source, tasks, queries)


def _described(name: str, model: FewShotModel) -> dict[str, Any]:
    return {"name": name, **{key: each for key, each in model.config.items() if key not in ("event_shape", "levels")}}
