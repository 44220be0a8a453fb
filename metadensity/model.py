"""What every few-shot model is: a module that turns a support set into a density."""

from __future__ import annotations

import inspect
import operator
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from metadensity.checks import is_whole, require_integer_pixels, require_lengths, require_levels
from metadensity.density import Density
from metadensity.episode import EpisodeSource
from metadensity.nn.dropout import dropping
from metadensity.nn.inputs import SupportInput

Config = TypeVar("Config")
_LOOKED_AT = 64  # images that encoders of supports are centred by


class FewShotModel(nn.Module):
    """``density = model(support)``: conditioned once, used many times.

    event_shape: ``(C, *space)`` with one, two or three space dimensions. levels: number of pixel values.
    config: the constructor arguments with all defaults, JSON values only; ``metadensity.save`` writes them beside the
        weights. They are recorded once, here, whatever the constructor of a subclass does with them.

    ``class Mine(FewShotModel, options=[SomeConfig])`` takes the fields of a dataclass as keyword arguments, with their
    defaults, through the ``**options`` of its constructor; ``inspect.signature(Mine)`` has them all. Without
    ``options=``, what ``*args`` and ``**options`` take is what the class above it takes.
    """

    __signature__: ClassVar[inspect.Signature]
    earlier: ClassVar[dict[str, Any]] = {}  # options by what versions did that had none
    any_places: ClassVar[bool] = False  # whether neither weights nor inputs depend on how many places there are

    def __init_subclass__(cls, options: Sequence[type] = (), **others: Any) -> None:
        super().__init_subclass__(**others)
        known = [field for each in options for field in fields(each) if "earlier" in field.metadata]
        cls.earlier = {**cls.earlier, **{field.name: field.metadata["earlier"] for field in known}}
        if options or "__init__" in cls.__dict__:
            cls.__signature__ = _signature(cls, options)

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        model = super().__new__(cls)
        if arguments or options or not _required(cls.__signature__):  # a copy is made without any
            try:
                bound = cls.signature(options).bind(*arguments, **options)
            except TypeError as error:
                takes = ", ".join(cls.signature(options).parameters)
                raise TypeError(f"{cls.__name__}: {error}. It takes {takes}.") from None
            bound.apply_defaults()
            model.__dict__["_arguments"] = _flat(bound)  # for __init__
        return model

    @classmethod
    def signature(cls, options: Mapping[str, Any]) -> inspect.Signature:
        """What the constructor takes, where ``options`` are among the arguments: one may decide which others there are.

        Raises ValueError where it cannot be decided.
        """
        return cls.__signature__

    @classmethod
    def complete(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """A recorded ``config``, and of options that its version did not have yet what that version did.

        Raises ValueError as ``signature``.
        """
        takes = cls.signature(config).parameters
        return {**{name: value for name, value in cls.earlier.items() if name in takes}, **config}

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__()
        self.provenance: dict[str, Any] = {}
        self.default_dtype = torch.get_default_dtype()  # what a file has to build it under
        try:
            space = tuple(operator.index(size) for size in event_shape)
        except TypeError:  # not a sequence, or not of whole numbers
            space = ()
        if not 2 <= len(space) <= 4 or min(space) < 1:
            raise ValueError(
                f"event_shape={event_shape}; it must be (channels, *space) with one to three space dimensions of at "
                "least one place each, for example (1, 28, 28)."
            )
        if not is_whole(levels) or levels < 2:
            raise ValueError(
                f"levels={levels!r}; a pixel needs at least 2 levels (2 for binary, 256 for 8-bit images)."
            )
        self.event_shape: tuple[int, ...] = space
        self.levels = int(levels)
        shape = {"event_shape": list(space), "levels": self.levels}
        self.config: dict[str, Any] = {
            name: shape[name] if name in shape else _plain(value)
            for name, value in self.__dict__.pop("_arguments", {}).items()
        }

    def take(self, kind: type[Config], options: Mapping[str, Any]) -> Config:
        """The fields of a dataclass among ``options``, validated by it; ``config`` holds what it made of them.

        For example the size of f(s) in place of None.
        """
        taken = kind(**pick(kind, options))
        self.config |= {name: _plain(getattr(taken, name)) for name in pick(kind, self.config)}
        return taken

    def forward(self, support: Tensor, lengths: Tensor | None = None) -> Density:
        """The density of each task given its support ``(S, tasks, C, *space)``, integers in [0, levels). S may be 0.

        lengths: of sequences, ``(S, tasks)`` integers: how many of the first places of each are real. None: all.

        Raises TypeError for pixels that are no integers, ValueError for a wrong shape or a level out of range, and for
        lengths where the model reads supports of one size.
        """
        self.check_support(support)
        if lengths is None:
            return self.condition(support)
        require_lengths("lengths", lengths, support.shape[:2], support.shape[-1])
        return self.condition_on_lengths(support, lengths)

    def check_support(self, support: Tensor) -> None:
        """Raise as ``forward`` does unless this is a support for this model."""
        require_integer_pixels("support", support)
        if support.ndim != len(self.event_shape) + 2 or tuple(support.shape[2:]) != self.event_shape:
            raise ValueError(
                f"support has shape {tuple(support.shape)}; this model needs (shots, tasks, channels, *space) = "
                f"(shots, tasks, {', '.join(map(str, self.event_shape))})."
            )
        require_levels("support", support, self.levels)

    @abstractmethod
    def condition(self, support: Tensor) -> Density:
        """The density given a support that has been checked."""

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> Density:
        """``condition`` of sequences of which the first ``lengths`` ``(S, tasks)`` places are real, checked as well.

        A model that can read them overrides this; places that are not real must move nothing.
        """
        raise ValueError(
            f"{type(self).__name__} reads supports of one size and was given lengths, so it would take padding for "
            "content. Cut windows of one length (metadensity.episode.windows), or take a model that reads lengths."
        )

    def loss(
        self,
        support: Tensor,
        query: Tensor,
        generator: torch.Generator | None = None,
        support_lengths: Tensor | None = None,
        query_lengths: Tensor | None = None,
    ) -> Tensor:
        """What training minimises, in nats, ``(Q, tasks)``: here minus the log-likelihood of the queries.

        support: ``(S, tasks, C, *space)``; query: ``(Q, tasks, C, *space)``. generator: for losses that draw, as do
        those with dropout, which without one is off.
        lengths: as those of an Episode. Raises as the model and its density do.
        """
        with dropping(self, generator):
            density = self(support, support_lengths)
            if query_lengths is None:
                return -density.log_prob(query, generator)
            return -density.prefix_log_prob(query, query_lengths)

    def resized(self, *space: int) -> Self:
        """This model for other numbers of places, with the same parameters: what trains on windows scores whole clips.

        Raises ValueError for a model that depends on the number of places, another number of dimensions, or less than
        one place.
        """
        if not self.any_places:
            raise ValueError(
                f"{type(self).__name__} is of events {self.event_shape} alone. Take a model that is of any number of "
                "places, such as WaveNet or ByteNet."
            )
        if len(space) != len(self.event_shape) - 1:
            raise ValueError(
                f"space={space}; this model has {len(self.event_shape) - 1} space dimensions, give as many."
            )
        with torch.random.fork_rng(devices=[]):
            other = type(self)(**{**self.config, "event_shape": (self.event_shape[0], *space)})
        state, weight = self.state_dict(keep_vars=True), next(self.parameters())
        asked = [parameter.requires_grad for parameter in self.parameters()]
        other.to(weight.device, weight.dtype).load_state_dict(state, assign=True)
        for parameter, asks in zip(self.parameters(), asked, strict=True):
            parameter.requires_grad_(asks)  # which assigning has overwritten
        other.provenance = self.provenance
        return other.train(self.training)

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """torch's, for models all of whose tensors a state dict brings back; of others it would leave rubbish.

        Raises ValueError for a model with buffers that are computed when it is built, as positions and masks are.
        """
        computed = [
            f"{path}.{name}".lstrip(".")
            for path, part in self.named_modules()
            for name in sorted(part._non_persistent_buffers_set)
        ]
        if computed:
            raise ValueError(
                f"{type(self).__name__} computes {len(computed)} of its buffers when it is built ({computed[0]}, ...); "
                "after to_empty they would hold anything, and no state dict has them. Build the model where it is to "
                "be, and load its weights there."
            )
        return super().to_empty(device=device, recurse=recurse)

    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """Look at data before training begins, which is when a trainer calls this: encoders of supports are centred.

        source: the training episodes, to be asked for some of ``tasks`` tasks with ``queries`` queries. A model that
        was trained already must stay as it is.
        """
        inputs = [part for part in self.modules() if isinstance(part, SupportInput) and not part.seen]
        if inputs:
            batches = -(-_LOOKED_AT // (tasks * queries))
            episodes = [source.episode(i, tasks, 0, queries) for i in range(batches)]
            images = torch.cat([episode.query.flatten(0, 1) for episode in episodes])
            known = [episode.query_lengths.flatten() for episode in episodes if episode.query_lengths is not None]
            lengths = torch.cat(known) if known else None
            for part in inputs:
                device = part.mean.device
                part.look_at(images.to(device), None if lengths is None else lengths.to(device))


def pick(kind: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``options`` are fields of a dataclass."""
    return {field.name: options[field.name] for field in fields(kind) if field.name in options}


def _signature(kind: type[FewShotModel], options: Sequence[type]) -> inspect.Signature:
    """The constructor's own arguments, and in place of ``*args`` and ``**options`` those that they take."""
    own = list(inspect.signature(kind.__init__).parameters.values())[1:]
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [parameter for parameter in own if parameter.kind not in open_ended]
    further: list[inspect.Parameter] = []
    if options:
        further = [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
            for each in options
            for field in fields(each)
        ]
    elif len(named) < len(own):
        above = next(base for base in kind.__mro__[1:] if issubclass(base, FewShotModel))
        further = list(above.__signature__.parameters.values())
    known = {parameter.name: parameter for parameter in [*further, *named]}  # the class's own word counts
    return inspect.Signature(sorted(known.values(), key=lambda each: (each.kind, each.default is not each.empty)))


def _required(signature: inspect.Signature) -> bool:
    return any(parameter.default is parameter.empty for parameter in signature.parameters.values())


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Arguments by name, those of ``**options`` among them."""
    flat: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        many = bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        flat |= value if many else {name: value}
    return flat


def _plain(value: Any) -> Any:
    """A value as JSON has it: whole numbers of any type as int, sequences as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return operator.index(value) if is_whole(value) and not isinstance(value, bool) else value


FewShotModel.__signature__ = inspect.Signature(list(inspect.signature(FewShotModel.__init__).parameters.values())[1:])
