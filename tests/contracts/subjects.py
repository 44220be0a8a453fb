"""What the contract suite runs on: every model in MODELS, small, with random parameters, in every adaptation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from metadensity import Density
from metadensity.adaptation import AdaptiveModel
from metadensity.likelihoods import LIKELIHOODS
from metadensity.models import MODELS
from metadensity.testing.contracts import ONE_OF_EACH_DIMENSION, Contract
from metadensity.testing.subjects import ADAPTATIONS, Case, Subject, arguments, is_network, small_model

# Arguments that keep a model small, for the constructors that take them, and models that need others.
SMALL: dict[str, Any] = {"layers": 3, "planes": 6, "penultimate": 8}
FEW: dict[str, Any] = {"components": 3}  # the same, of likelihoods, which not every network has a choice of
OVERRIDES: dict[str, dict[str, Any]] = {
    "multiscale": {"base": 2, "upscaler_layers": 2},
    "nade": {"hidden": 8, "context": 4},
    "wavenet": {"patches": 3},
    "row_lstm": {"layers": 2, "first_kernel": 3},
    "diagonal_bilstm": {"layers": 2},
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
    "row_lstm": (({"attention": None},),),
    "diagonal_bilstm": (ATTENTION[1:],),
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
        options = {name: value for name, value in small.items() if name in arguments(kind)}
        model = small_model(kind, case, {**options, **self.options}, dtype, seed)
        reads = self.name not in IGNORE_SUPPORT or self.adaptation != "unadapted"  # steps read it whatever the model
        return Subject(model, ADAPTATIONS[self.adaptation], reads)


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


def recipes_of(contract: Contract) -> list[Recipe]:
    """Those of the suite that a contract applies to."""
    alike = [recipe for recipe in RECIPES if contract.heads or recipe.options.get("likelihood", FIRST) == FIRST]
    return [recipe for recipe in alike if contract.applies(KINDS[str(recipe)])]


# What an adapted density is checked on, which is the same network with other weights: each number of dimensions,
# several channels, several levels, larger kernels.
OF_ADAPTED = (
    *ONE_OF_EACH_DIMENSION,
    *(Case((1, 3, 3)), Case((1, 2, 2), 3), Case((2, 4)), Case((2, 2, 1, 2)), Case((2, 3)), Case((1, 20), 3)),
    Case((1, 2, 1, 3)),
    *(Case((1, 12)), Case((2, 4, 4), 3, {"kernel_size": 5}), Case((1, 3, 4, 3)), Case((2, 2, 3), 3)),
    *(Case((2, 5), 3, {"kernel_size": 3}), Case((1, 4, 5), 2, {"kernel_size": 5})),
    Case((2, 2, 2, 2), 2, {"kernel_size": 5}),
)


def cases_of(contract: Contract, recipe: Recipe) -> list[Case]:
    """The images a contract is checked on with a recipe: all of them with a model as it is, in the first likelihood.

    Adapted, those of ``OF_ADAPTED``. Another likelihood is another head, which has nothing to do for one channel of two
    levels: it is checked on others, where there are any of as many dimensions.
    """
    if recipe.adaptation != "unadapted":
        return [case for case in contract.cases if case in OF_ADAPTED]
    if recipe.options.get("likelihood", FIRST) == FIRST:
        return list(contract.cases)
    rich = [case for case in contract.cases if case.event_shape[0] > 1 or case.levels > 2]
    dimensions = {len(case.event_shape) for case in rich}
    return [case for case in contract.cases if case in rich or len(case.event_shape) not in dimensions]


RECIPES = recipes()
KINDS = {str(recipe): density_of(recipe) for recipe in RECIPES}
NETWORKS = [recipe for recipe in RECIPES if is_network(KINDS[str(recipe)])]
