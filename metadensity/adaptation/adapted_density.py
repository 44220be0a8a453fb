"""Densities of adapted models: each task of the batch has parameters of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metadensity.adaptation.checkpointing import rematerialised
from metadensity.adaptation.functional import FunctionalPair, ParameterDict, map_tasks, split_tasks
from metadensity.adaptation.inner_loop import InnerLoop
from metadensity.adaptation.losses import conditioned, require_exact
from metadensity.densities.independent import IndependentDensity
from metadensity.densities.pixelcnn import RasterDensity
from metadensity.density import Density, FactorisedDensity
from metadensity.drawing import Draws
from metadensity.model import FewShotModel
from metadensity.networks.captured import CapturedTensors


def adapted_density(
    model: FewShotModel,
    parameters: Mapping[str, Tensor],
    support: Tensor,
    loop: InnerLoop,
    lengths: Tensor | None = None,
) -> Density:
    """The density of ``model`` given ``support``, with the parameters of each task in place of its own.

    parameters: by name, ``(tasks, *shape)``; those that are missing are the model's, shared by all tasks.
    loop: how tasks are computed together (way, chunk, rematerialise). lengths: those of the supports, ``(S, tasks)``.
    The support is encoded here, once for each task, and never again however the density is used.
    Raises TypeError for models whose density is a bound.
    """
    tasks = _Tasks(model, parameters, support, loop, lengths)
    kind = tasks.first
    require_exact(model, kind)
    if isinstance(kind, IndependentDensity):  # a table for each task says it all
        return IndependentDensity(tasks.run(lambda density, _: density.log_probs, support[:0])[0])
    if isinstance(kind, RasterDensity):
        return AdaptedPixelCNNDensity(tasks)
    if isinstance(kind, FactorisedDensity):
        return AdaptedFactorisedDensity(tasks)
    return AdaptedDensity(tasks)


class _Tasks:
    """A model with parameters for each task, conditioned once on each task's support.

    first: the density of the first task, for what all of them have in common.
    """

    def __init__(
        self,
        model: FewShotModel,
        parameters: Mapping[str, Tensor],
        support: Tensor,
        loop: InnerLoop,
        lengths: Tensor | None,
    ) -> None:
        self.model, self.loop, self.device = model, loop, support.device
        self.parameters = {f"model.{name}": tensor for name, tensor in parameters.items()}
        self.captured = CapturedTensors(model, own=parameters)
        self._together: Callable[[Sequence[Tensor]], Density]
        self._conditioned: ParameterDict = {}  # what the densities are made of, (tasks, *shape) each

        def condition(model: FewShotModel, part: ParameterDict) -> ParameterDict:
            tensors = [part["support"].new_zeros(())]  # there is one tensor at least, where the support is not read
            own = part["lengths"].unsqueeze(1) if "lengths" in part else None
            self._together = take_apart(conditioned(model, part["support"].unsqueeze(1), own), tensors)
            return {str(number): tensor for number, tensor in enumerate(tensors)}

        self.count = support.shape[1]
        inputs = {"support": support.transpose(0, 1)} | ({} if lengths is None else {"lengths": lengths.T})
        self._conditioned = self._map(condition, inputs, max(1, len(support)))
        self.first = self._density({name: tensor[0] for name, tensor in self._conditioned.items()})

    def __len__(self) -> int:
        return self.count

    def __reduce__(self) -> Any:
        raise TypeError(
            "The density of an adapted model holds functions, so it is neither copied nor stored. Adapt again."
        )

    def _density(self, part: ParameterDict) -> Density:
        """The density of the task whose share of the tensors this is."""
        return self._together([part[str(number)] for number in range(len(self._conditioned))])

    def _map(
        self, function: Callable[[Any, ParameterDict], ParameterDict], inputs: ParameterDict, images: int
    ) -> ParameterDict:
        """``function(model, part)`` for each task with its parameters and its part of inputs, ``(tasks, ...)`` each.

        The results, a dictionary of tensors, are stacked along a new first dimension. images: of a task, at a time.
        """
        bound = FunctionalPair(self.model, function)
        vectorised = self.loop.vectorised(self.model, images)

        def chunk(own: ParameterDict, part: ParameterDict, shared: ParameterDict) -> ParameterDict:
            def one(own: ParameterDict, part: ParameterDict) -> ParameterDict:
                found: ParameterDict = bound.call({**shared, **own}, part)
                return found

            found: ParameterDict = map_tasks(one, vectorised, own, part)
            return found

        results: list[ParameterDict] = []
        chunks = self.loop.chunks(len(self), vectorised)
        sizes = [here.stop - here.start for here in chunks]
        with self.captured.restored():
            shared = bound.tensors()
            for own, part in zip(split_tasks(self.parameters, sizes), split_tasks(inputs, sizes), strict=True):
                results.append(rematerialised(chunk, own, part, shared, keep=not self.loop.rematerialise))
        return {name: torch.cat([result[name] for result in results]) for name in results[0]}

    def run(self, function: Callable[[Any, Tensor], Tensor], values: Tensor) -> Tensor:
        """``function(density, value)`` for each task, stacked along dimension 1.

        values: ``(N, tasks, ...)``, of which function gets ``(N, 1, ...)``. It gives ``(M, ...)``.
        """

        def score(model: FewShotModel, part: ParameterDict) -> ParameterDict:
            return {"result": function(self._density(part), part["value"].unsqueeze(1))}

        inputs = {**self._conditioned, "value": values.transpose(0, 1)}
        return self._map(score, inputs, max(1, len(values)))["result"].transpose(0, 1)

    @torch.no_grad()
    def sample_from_each(self, draw: Any, numbers: Sequence[Any]) -> Tensor:
        """``draw(density, numbers[i])`` with the density of task i alone, ``(N, 1, C, *space)``, joined along 1."""
        bound = FunctionalPair(self.model, lambda model, part, given: draw(self._density(part), given))
        results = []
        for i, given in enumerate(numbers):
            own, part = (
                {name: tensor[i] for name, tensor in all_.items()} for all_ in (self.parameters, self._conditioned)
            )
            with self.captured.restored():
                results.append(bound.call(own, part, given))
        return torch.cat(results, 1)


def take_apart(whole: Any, tensors: list[Tensor]) -> Callable[[Sequence[Tensor]], Any]:
    """Append all tensors that ``whole`` is made of to ``tensors``; returns what makes its like from as many others.

    whole: a density, or what densities are made of: tensors, dataclasses, lists, tuples, dictionaries. Modules and all
    else stay as they are; modules have their parameters replaced by functional calls, and a density made within one
    captures those.
    """
    if isinstance(whole, Tensor):
        tensors.append(whole)
        place = len(tensors) - 1
        return lambda found: found[place]
    if isinstance(whole, CapturedTensors):
        networks = whole.networks
        return lambda _: CapturedTensors(*networks)
    kind: Any = type(whole)
    if isinstance(whole, Density | _Tasks):
        attributes = take_apart(vars(whole), tensors)
        return lambda found: _made(kind, attributes(found))
    if dataclasses.is_dataclass(whole):
        fields = take_apart({field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}, tensors)
        return lambda found: kind(**fields(found))
    if isinstance(whole, dict):
        parts = {name: take_apart(part, tensors) for name, part in whole.items()}
        return lambda found: {name: part(found) for name, part in parts.items()}
    if isinstance(whole, list | tuple) and not isinstance(whole, torch.Size):
        entries = [take_apart(part, tensors) for part in whole]
        return lambda found: kind(part(found) for part in entries)
    return lambda _: whole


def _made(kind: type, attributes: Mapping[str, Any]) -> Any:
    whole: Any = object.__new__(kind)
    vars(whole).update(attributes)
    return whole


class AdaptedDensity(Density):
    """The density of any model with parameters of its own for each task."""

    def __init__(self, tasks: _Tasks, validate_args: bool | None = None) -> None:
        self._tasks = tasks
        super().__init__(len(tasks), tasks.model.event_shape, tasks.model.levels, validate_args)

    @property
    def parameters(self) -> ParameterDict:
        """Each task's own parameters, by name of the model's parameter, ``(tasks, *shape)``."""
        return {name.removeprefix("model."): tensor for name, tensor in self._tasks.parameters.items()}

    def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        if not value.numel():
            return torch.zeros(value.shape[: -len(self.event_shape)], device=value.device)
        return self._of_each(lambda density, value: density._log_prob(value, None), value)

    def _of_each(self, function: Callable[[Any, Tensor], Tensor], value: Tensor) -> Tensor:
        """What ``function(density, images)`` gives of each task, ``(N, 1, ...)``, as ``(*sample, tasks, ...)``."""
        images = value.reshape(-1, len(self._tasks), *self.event_shape)
        found = self._tasks.run(lambda density, value: function(density, value).squeeze(1), images)
        return found.reshape(*value.shape[: -len(self.event_shape)], *found.shape[2:])

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        shape = self._extended(sample_shape)
        if not shape.numel():
            return torch.zeros(shape, dtype=torch.long, device=self._tasks.device)
        count = torch.Size(sample_shape).numel()
        draws = self._tasks.sample_from_each(lambda density, n: density.sample((n,), generator), [count] * self.tasks)
        return draws.view(shape)


class AdaptedFactorisedDensity(AdaptedDensity, FactorisedDensity):
    """An ``AdaptedDensity`` that is a product over places."""

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        if not value.numel():
            return torch.zeros(value.shape, device=value.device)
        return self._of_each(lambda density, value: density._conditional_log_probs(value), value)

    def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        return FactorisedDensity._log_prob(self, value, generator)

    def _first_to_last(self) -> bool:
        return isinstance(self._tasks.first, FactorisedDensity) and self._tasks.first._first_to_last()


class AdaptedPixelCNNDensity(AdaptedFactorisedDensity, RasterDensity):
    """An autoregressive density whose network has parameters of its own for each task.

    Sampling runs the cached sampler task by task; ``sample_from_uniforms(naive=True)``, the oracle,
    runs the whole networks.
    """

    draws_in_step = False  # a task at a time
    sample = RasterDensity.sample
    _first_to_last = RasterDensity._first_to_last

    def _network_logits(self, pixels: Tensor) -> Tensor:
        images = pixels.unflatten(0, (-1, self.tasks))
        return self._tasks.run(lambda density, value: density._logits(value.squeeze(1)), images).flatten(0, 1)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self._tasks.device

    @property
    def has_attention(self) -> bool:
        """See ``SequentialDensity.has_attention``."""
        return isinstance(self._tasks.first, RasterDensity) and self._tasks.first.has_attention

    def _attention_weights(self, value: Tensor) -> Tensor:
        return self._of_each(lambda density, value: density._attention_weights(value), value)

    def _sample_cached(self, draws: Draws) -> Tensor:
        each = [draws.map(lambda part, i=i: part[i :: self.tasks, None]) for i in range(self.tasks)]  # type: ignore[misc]
        return self._tasks.sample_from_each(lambda density, own: density.drawn(own), each).flatten(0, 1)
