"""The tensors that networks had when a density was made of them."""

from __future__ import annotations

import contextlib
import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class CapturedTensors:
    """Parameters and buffers of networks as they are now, for a density that uses the networks later.

    A density computes within ``restored()``, where the networks have these tensors, whatever a functional call, a swap
    of averaged weights or an inner loop has put in their place since: log-probabilities and gradients are those of the
    tensors that the density was made with. Tensors that were themselves written over are gone, which is an error.
    What is written into the memory of ``tensor.data``, which torch's own checks do not see, is not seen here.

    own: tensors of the density, which stand in for the networks' parameters of these names.
    """

    def __init__(self, *networks: nn.Module, own: Mapping[str, Tensor] | None = None) -> None:
        self.networks, self._own = networks, dict(own or {})
        _outside_graphs(self._capture)

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Within it the networks have the tensors that were captured.

        Raises RuntimeError where one of them has been written over since, or the networks have others in number.
        """
        others = _outside_graphs(self._others)
        if others is None:
            yield
            return
        places = _places_of(self.networks)
        try:
            _put(places, self._tensors)
            yield
        finally:
            _put(places, others)

    def _capture(self) -> None:
        self._names, self._tensors = _tensors_of(self.networks)
        known = itertools.chain.from_iterable(network.named_parameters() for network in self.networks if self._own)
        unused = {id(tensor) for name, tensor in known if name in self._own}
        used = [tensor for tensor in self._tensors if tensor is not None and id(tensor) not in unused]
        self._used = [*used, *self._own.values()]
        self._states = self._states_now()

    def _others(self) -> list[Tensor | None] | None:
        """What the networks have now, None where it is what was captured. Raises as ``restored``."""
        names, tensors = _tensors_of(self.networks)
        if names != self._names:
            raise self._error("it was rebuilt, by pruning or a parametrisation for example")
        if (states := self._states_now()) != self._states:
            pairs = zip(itertools.cycle(self._used), states, self._states, strict=False)
            changed = next(tensor for tensor, now, then in pairs if now != then)
            known = itertools.chain(self._own.items(), *(network.named_parameters() for network in self.networks))
            name = next((name for name, tensor in known if tensor is changed), "a buffer")
            raise self._error(f"{name} was written over, by an optimiser's step or load_state_dict for example")
        return None if all(map(operator.is_, tensors, self._tensors)) else tensors

    def _error(self, what: str) -> RuntimeError:
        kinds = ", ".join(dict.fromkeys(type(network).__name__ for network in self.networks))
        return RuntimeError(
            f"The network of this density, {kinds}, has changed since the density was made: {what}. A density is that "
            "of the parameters it was made with. Make a new one: density = model(support)."
        )

    def _states_now(self) -> list[int]:
        """How often each tensor that is used has been written to, and where it lies."""
        try:
            return [tensor._version for tensor in self._used] + [tensor.data_ptr() for tensor in self._used]
        except RuntimeError:  # those made in inference mode count no versions, those of torch.func lie nowhere
            return [0 if tensor.is_inference() else tensor._version for tensor in self._used]

    def __getstate__(self) -> dict[str, Any]:
        self._others()  # a copy of tensors that were written over would pass for what was captured
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._states = self._states_now()  # copies count from the beginning


def _outside_graphs(look: Any) -> Any:
    """``look()``, which is about Python's objects, by Python itself also where torch.compile traces a function."""
    return torch.compiler.disable(look)() if torch.compiler.is_compiling() else look()


def _tensors_of(modules: Sequence[nn.Module]) -> tuple[list[str], list[Tensor | None]]:
    """Names and tensors of modules and of those within them; ``named_parameters`` would take ten times as long."""
    names: list[str] = []
    tensors: list[Tensor | None] = []
    left = list(modules)
    for module in left:
        names += module._parameters
        names += module._buffers
        tensors += module._parameters.values()
        tensors += module._buffers.values()
        left += [part for part in module._modules.values() if part is not None]
    return names, tensors


def _places_of(modules: Sequence[nn.Module]) -> list[tuple[dict[str, Any], str]]:
    """Where a module holds each of the tensors, in the order of ``_tensors_of``."""
    places: list[tuple[dict[str, Any], str]] = []
    left = list(modules)
    for module in left:
        for held in (module._parameters, module._buffers):
            places += [(held, name) for name in held]
        left += [part for part in module._modules.values() if part is not None]
    return places


def _put(places: Sequence[tuple[dict[str, Any], str]], tensors: Sequence[Tensor | None]) -> None:
    for (held, name), tensor in zip(places, tensors, strict=True):
        held[name] = tensor
