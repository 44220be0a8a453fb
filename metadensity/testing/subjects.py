"""What the contracts are checked on: a model with random parameters, and the images it is made for."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metadensity.adaptation import InnerLoop, adapt
from metadensity.densities.pixelcnn import RasterDensity
from metadensity.density import Density, FactorisedDensity, SequentialDensity
from metadensity.model import FewShotModel

Adaptation = Callable[[FewShotModel, Tensor], Density]


def unadapted(model: FewShotModel, support: Tensor) -> Density:
    """The density of the model as it is."""
    return model(support)


def one_step(model: FewShotModel, support: Tensor) -> Density:
    """The density after one second-order step down the NLL of each support image given the others.

    The step size is the published 0.1. Five times that damps these random networks so much that what is left of one
    pixel's influence on another, 8e-11 nats, passes for none.
    """
    return adapt(model, support, InnerLoop(step_size=0.1))


# An inner loop joins the suite by a line here.
ADAPTATIONS: dict[str, Adaptation] = {"unadapted": unadapted, "one_step": one_step}


@dataclass(frozen=True)
class Subject:
    """A model with the way its density is made.

    reads_support: False for one that gives every task the same density. sees_whole_past: False for one in which a pixel
    may depend on some of those before it alone.
    """

    model: FewShotModel
    adapt: Adaptation = unadapted
    reads_support: bool = True
    sees_whole_past: bool = True

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.model.event_shape

    @property
    def levels(self) -> int:
        return self.model.levels

    def __call__(self, support: Tensor) -> Density:
        return self.adapt(self.model, support)

    def images(self, *sample: int, seed: int) -> Tensor:
        """Random images, ``(*sample, C, *space)``."""
        return random_images(*sample, *self.event_shape, levels=self.levels, seed=seed)


@dataclass(frozen=True)
class Case:
    """On what images a contract is checked, and arguments the constructor has to get (where it takes them)."""

    event_shape: tuple[int, ...]
    levels: int = 2
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        options = [f"{name}={value}" for name, value in self.options.items()]
        return "-".join(["x".join(map(str, self.event_shape)), f"{self.levels}levels", *options])


def small_model(
    kind: type[FewShotModel],
    case: Case,
    options: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> FewShotModel:
    """A model for the images of a case, with the options of both that its constructor takes, and random parameters."""
    known = arguments(kind)
    own = {name: value for name, value in case.options.items() if name in known}
    model = kind(case.event_shape, case.levels, **{**options, **own})
    randomise(model, seed)
    return model.to(dtype)


def arguments(kind: type[FewShotModel]) -> list[str]:
    """Names of the constructor's arguments."""
    return [name for name in inspect.signature(kind).parameters if name != "self"]


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Give every parameter random values, so that nothing is hidden behind a weight that starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = max(0.3, 1.15 / math.sqrt(parameter[0].numel())) if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def random_images(*shape: int, levels: int, seed: int) -> Tensor:
    """Integer pixels in [0, levels)."""
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed))


def is_any(density: Density) -> bool:
    """Every density."""
    return True


def is_bound(density: Density) -> bool:
    """Whether its numbers are lower bounds in the mean over what it draws."""
    return not density.exact


def is_exact(density: Density) -> bool:
    """Whether its numbers are probabilities, which have a sum; those of others are bounds."""
    return density.exact


def is_factorised(density: Density) -> bool:
    """Whether it is a product over places, which has an order in which it can be causal."""
    return isinstance(density, FactorisedDensity)


def is_sequential(density: Density) -> bool:
    """Whether it decides pixel after pixel, so that it can be drawn from uniform numbers and coded."""
    return isinstance(density, SequentialDensity)


def is_network(density: Density) -> bool:
    """Whether it is that of an autoregressive network, which has gradients in the pixels and two samplers."""
    return isinstance(density, RasterDensity)
