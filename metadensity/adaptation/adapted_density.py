"""Densities of adapted models: each task of the batch has parameters of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from metadensity.adaptation.checkpointing import rematerialised
from metadensity.adaptation.functional import Bound, Tensors, over_tasks, split
from metadensity.adaptation.inner_loop import InnerLoop
from metadensity.densities.independent import IndependentDensity
from metadensity.densities.pixelcnn import AutoregressiveDensity
from metadensity.density import Density
from metadensity.model import FewShotModel
from metadensity.networks.conditioning import Condition
from metadensity.networks.pixelcnn import PixelCNN


def adapted_density(model: FewShotModel, parameters: Mapping[str, Tensor], support: Tensor, loop: InnerLoop) -> Density:
    """The density of ``model`` given ``support``, with the parameters of each task in place of its own.

    parameters: by name, ``(tasks, *shape)``; those that are missing are the model's, shared by all tasks.
    loop: how tasks are computed together (way, chunk, rematerialise).
    """
    with torch.no_grad():
        prior = model.condition(support[:0, :1])  # what kind of density this model gives
    tasks = _Tasks(model, parameters, support, loop)
    if isinstance(prior, IndependentDensity):  # a table for each task says it all
        return IndependentDensity(tasks.run(lambda density, _: density.log_probs, support[:1])[0])
    if isinstance(prior, AutoregressiveDensity):
        return AdaptedAutoregressiveDensity(tasks, prior.network)
    return AdaptedDensity(tasks)


class _Tasks:
    """A model with parameters and a support for each task; the support is encoded anew whenever it is used."""

    def __init__(self, model: FewShotModel, parameters: Mapping[str, Tensor], support: Tensor, loop: InnerLoop) -> None:
        self.model, self.loop, self.support = model, loop, support
        self.parameters = {f"model.{name}": tensor for name, tensor in parameters.items()}

    def __len__(self) -> int:
        return self.support.shape[1]

    def run(self, function: Any, values: Tensor) -> Tensor:
        """``function(density, value)`` for each task, stacked along dimension 1.

        values: ``(N, tasks, ...)``, N at least 1, of which function gets ``(N, 1, ...)``. It gives ``(N, ...)``.
        """
        bound = Bound(self.model, lambda model, support, value: function(model.condition(support), value))
        supports, inputs = self.support.transpose(0, 1), values.transpose(0, 1)
        vectorised = self.loop.vectorised(self.model, len(values))

        def chunk(own: Tensors, part: Tensors, shared: Tensors) -> Tensors:
            def one(own: Tensors, support: Tensor, value: Tensor) -> Tensor:
                return bound.call({**shared, **own}, support.unsqueeze(1), value.unsqueeze(1))

            return {"results": over_tasks(one, vectorised, own, part["support"], part["value"])}

        shared, results = bound.tensors(), []
        chunks = self.loop.chunks(len(self), vectorised)
        owns = split(self.parameters, [here.stop - here.start for here in chunks])
        for here, own in zip(chunks, owns, strict=True):
            part = {"support": supports[here], "value": inputs[here]}
            results.append(rematerialised(chunk, own, part, shared, keep=not self.loop.rematerialise)["results"])
        return torch.cat(results).transpose(0, 1)

    @torch.no_grad()
    def sample_from_each(self, draw: Any, numbers: Sequence[Any]) -> Tensor:
        """``draw(density, numbers[i])`` with the density of task i alone, ``(N, 1, C, *space)``, joined along 1."""
        bound = Bound(self.model, lambda model, support, given: draw(model.condition(support), given))
        results = []
        for i, given in enumerate(numbers):
            own = {name: tensor[i] for name, tensor in self.parameters.items()}
            results.append(bound.call(own, self.support[:, [i]], given))
        return torch.cat(results, 1)


def _terms(tasks: _Tasks, value: Tensor) -> Tensor:
    """log p(x_t | x_<t, support) of ``value``, ``(*sample, tasks, C, *space)``."""
    if not value.numel():
        return torch.zeros(value.shape, device=value.device)
    images = value.reshape(-1, len(tasks), *tasks.model.event_shape)
    return tasks.run(lambda density, value: density._pixel_log_prob(value).squeeze(1), images).reshape(value.shape)


class AdaptedDensity(Density):
    """The density of any model with parameters of its own for each task."""

    def __init__(self, tasks: _Tasks, validate_args: bool | None = None) -> None:
        self._tasks = tasks
        super().__init__(len(tasks), tasks.model.event_shape, tasks.model.levels, validate_args)

    @property
    def parameters(self) -> Tensors:
        """Each task's own parameters, by name of the model's parameter, ``(tasks, *shape)``."""
        return {name.removeprefix("model."): tensor for name, tensor in self._tasks.parameters.items()}

    def _pixel_log_prob(self, value: Tensor) -> Tensor:
        return _terms(self._tasks, value)

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        shape = self._extended(sample_shape)
        if not shape.numel():
            return torch.zeros(shape, dtype=torch.long, device=self._tasks.support.device)
        count = torch.Size(sample_shape).numel()
        draws = self._tasks.sample_from_each(lambda density, n: density.sample((n,), generator), [count] * self.tasks)
        return draws.view(shape)


class AdaptedAutoregressiveDensity(AutoregressiveDensity):
    """An autoregressive density whose network has parameters of its own for each task.

    network: stands for those networks; called as one, it gives the logits of each task from its own parameters.
    Sampling runs the cached sampler task by task; ``sample_from(naive=True)``, the oracle, runs the whole networks.
    """

    def __init__(self, tasks: _Tasks, prior: PixelCNN, validate_args: bool | None = None) -> None:
        self._tasks = tasks
        network = cast(PixelCNN, AdaptedNetworks(tasks, prior))
        super().__init__(network, Condition(len(tasks), [], None), validate_args)

    @property
    def parameters(self) -> Tensors:
        """Each task's own parameters, by name of the model's parameter, ``(tasks, *shape)``."""
        return {name.removeprefix("model."): tensor for name, tensor in self._tasks.parameters.items()}

    def _pixel_log_prob(self, value: Tensor) -> Tensor:
        return _terms(self._tasks, value)

    def _sample_from(self, uniforms: Tensor, naive: bool, known: Tensor | None, temperature: float) -> Tensor:
        if naive:
            return super()._sample_from(uniforms, naive, known, temperature)

        def draw(density: Any, given: tuple[Tensor, Tensor | None]) -> Tensor:
            images: Tensor = density.sample_from(given[0], known=given[1], temperature=temperature)
            return images

        numbers, pixels = (
            None if part is None else part.reshape(-1, self.tasks, *self.event_shape) for part in (uniforms, known)
        )
        assert numbers is not None
        each = [(numbers[:, [i]], None if pixels is None else pixels[:, [i]]) for i in range(self.tasks)]
        return self._tasks.sample_from_each(draw, each).reshape(uniforms.shape)


class AdaptedNetworks:
    """The networks of a batch of tasks, called and asked as one ``PixelCNN`` is."""

    def __init__(self, tasks: _Tasks, prior: PixelCNN) -> None:
        self._tasks = tasks
        self.event_shape, self.levels, self.dims = prior.event_shape, prior.levels, prior.dims
        self.layers, self.input, self.head = prior.layers, prior.input, prior.head

    def __call__(self, pixels: Tensor, condition: Condition) -> Tensor:
        """Logits ``(samples * tasks, levels, C, *space)`` of ``(samples * tasks, C, *space)``, tasks fastest."""
        images = pixels.unflatten(0, (-1, condition.tasks))
        logits = self._tasks.run(lambda density, value: density._logits(value.squeeze(1)), images)
        return logits.flatten(0, 1)
