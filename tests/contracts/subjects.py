"""What the contract suite runs on: every model in MODELS, small, with random parameters, in every adaptation."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metadensity import Density, FewShotModel
from metadensity.adaptation import AdaptiveModel, InnerLoop, adapt
from metadensity.densities.pixelcnn import RasterDensity
from metadensity.density import FactorisedDensity, SequentialDensity
from metadensity.likelihoods import LIKELIHOODS
from metadensity.models import MODELS

# Arguments that keep a model small, for the constructors that take them, and models that need others.
SMALL: dict[str, Any] = {"layers": 3, "planes": 6, "penultimate": 8}
FEW: dict[str, Any] = {"components": 3}  # the same, of likelihoods, which not every network has a choice of
OVERRIDES: dict[str, dict[str, Any]] = {
    "multiscale": {"base": 2, "upscaler_layers": 2},
    "wavenet": {"patches": 3},
    "switching_prediction": {"states": 3, "taps": 4, "stay": 2},
    "ngram": {"entries": 64},
    "bytenet": {"layers": 2, "encoder_layers": 1, "planes": 8},
    "aligned_bytenet": {"layers": 2, "encoder_layers": 2, "source_layers": 1, "planes": 8},
}
# Arguments by which a model is another density: a constructor is run with each choice of an axis that it takes, and
# with all combinations of axes. Those that also have tests of their own share a choice, which halves the combinations.
Axis = Sequence[dict[str, Any]]
ATTENTION: Axis = ({"attention": "additive"}, {"attention": "dot"})
MORE: Axis = ({}, {"first_kernel": 5, "prototypes": 4})
# Models made of one that is here in every variant: these are run in fewer, with all their options nevertheless.
FEWER: dict[str, Sequence[Axis]] = {
    "ensemble": (ATTENTION[1:],),
    "aligned": ((ATTENTION[0], {**ATTENTION[1], **MORE[1]}),),
    "attention_meta": ((ATTENTION[0], {**ATTENTION[1], **MORE[1], "patch_stride": 2}),),
    "wavenet": (ATTENTION[1:],),
    "bytenet": (({"attention": None}, {**ATTENTION[1], "block": "relu"}),),
    "aligned_bytenet": (({"attention": None}, {**ATTENTION[1], "block": "multiplicative"}),),
    "multiscale": ((ATTENTION[0], {**ATTENTION[1], "first_kernel": 5, "patch_stride": 2}),),
}
COMPOSED = {"ensemble"}  # and these adapt in tests of their own


def variants(name: str) -> Sequence[Axis]:
    """The axes of a model; that of likelihoods has whatever is listed in ``LIKELIHOODS``."""
    return (*FEWER.get(name, (ATTENTION, MORE)), [{"likelihood": each} for each in LIKELIHOODS])


FIRST = "categorical"  # likelihood

# Models that give every task the same density, by design.
IGNORE_SUPPORT = {"independent", "unconditional"}

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
    """A model with the way its density is made."""

    model: FewShotModel
    adapt: Adaptation = unadapted
    reads_support: bool = True

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


@dataclass(frozen=True)
class Recipe:
    """How to build one subject of the suite."""

    name: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    adaptation: str = "unadapted"

    def __str__(self) -> str:
        parts = [self.name, *(str(value) for value in self.options.values() if value != FIRST)]
        return "-".join(parts if self.adaptation == "unadapted" else [*parts, self.adaptation])

    def build(self, case: Case, dtype: torch.dtype = torch.float32, seed: int = 0) -> Subject:
        """The subject with random parameters."""
        kind = MODELS[self.name]
        small = {**SMALL, **FEW, **OVERRIDES.get(self.name, {})}
        options = {name: value for name, value in {**small, **case.options}.items() if name in arguments(kind)}
        model = kind(case.event_shape, case.levels, **options, **self.options)
        randomise(model, seed)
        reads = self.name not in IGNORE_SUPPORT or self.adaptation != "unadapted"  # steps read it whatever the model
        return Subject(model.to(dtype), ADAPTATIONS[self.adaptation], reads)


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


def recipes() -> list[Recipe]:
    """Every model, in every variant that it takes, in every adaptation.

    Adapted from outside are the models that do not adapt by themselves and are not composed, in the first likelihood:
    the others differ in the head alone, which adapts as every other layer does.
    """
    found = []
    for name, kind in MODELS.items():
        takes = set(arguments(kind))
        axes = [[choice for choice in axis if takes >= choice.keys()] for axis in variants(name)]
        for choices in itertools.product(*(axis for axis in axes if axis)):
            chosen = {key: value for choice in choices for key, value in choice.items()}
            first = chosen.get("likelihood", FIRST) == FIRST
            outside = first and not adapts_itself(name) and name not in COMPOSED
            found += [Recipe(name, chosen, way) for way in ADAPTATIONS if way == "unadapted" or outside]
    return found


def adapts_itself(name: str) -> bool:
    """Whether the model has an inner loop of its own."""
    return issubclass(MODELS[name], AdaptiveModel)


def density_of(recipe: Recipe) -> Density:
    """A density of this recipe, to see of what kind it is."""
    subject = recipe.build(Case((1, 3)))
    return subject(subject.images(0, 1, seed=0))


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


RECIPES = recipes()
KINDS = {str(recipe): density_of(recipe) for recipe in RECIPES}
NETWORKS = [recipe for recipe in RECIPES if is_network(KINDS[str(recipe)])]
