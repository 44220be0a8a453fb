"""Under autocast every density of the library and of the tasks gives log p in float32 or better, near float64.

Models and their likelihoods are held to it by ``checks_model.bfloat16_is_close``; here are the densities that no model
returns by itself, and a list that no density is missing from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from metadensity import Density
from metadensity.densities.counts import CountedDensity
from metadensity.densities.ensemble import MixedDensity, SequentialEnsembleDensity
from metadensity.densities.pixelcnn import PredictedDensity
from metadensity.densities.sequence import SequenceDensity
from metadensity.density import BoundDensity, DerivedDensity, ExpandedDensity, FactorisedDensity, SequentialDensity
from metadensity.models import MODELS, ConditionalPixelCNN
from metadensity.testing import checks_model
from metadensity.testing.contracts import CONTRACTS
from metadensity.testing.subjects import Case, randomise
from tasks import TASKS
from tasks.chains.density import UrnDensity
from tasks.templates.density import TemplateDensity
from tasks.transduction.density import TransductionDensity

from .subjects import RECIPES, recipes_of

# What densities are made of, and none themselves.
BASES = {Density, FactorisedDensity, SequentialDensity, DerivedDensity, BoundDensity}


def below(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from below(each)


def conditional(dtype: torch.dtype, shape: tuple[int, ...] = (1, 12), levels: int = 4) -> ConditionalPixelCNN:
    model = ConditionalPixelCNN(shape, levels, layers=2, planes=8, penultimate=8)
    randomise(model, 1)
    return model.to(dtype)


def images(count: int, tasks: int = 2, shape: tuple[int, ...] = (1, 12), levels: int = 4) -> Tensor:
    return torch.randint(levels, (count, tasks, *shape), generator=torch.Generator().manual_seed(count))


def strings(dtype: torch.dtype) -> tuple[Distribution, Tensor]:
    density = SequenceDensity(conditional(dtype)(images(2)), 3)
    value = images(20)
    return density, torch.where((value == 3).cumsum(-1) > 0, 3, value)  # what follows an end is the end


def optional(name: str, **options: Any) -> Callable[[torch.dtype], tuple[Distribution, Tensor]]:
    """What a model gives with an option that the suite has not."""

    def given(dtype: torch.dtype) -> tuple[Distribution, Tensor]:
        model = MODELS[name]((1, 12), 4, layers=2, planes=8, penultimate=8, **options)
        randomise(model, 1)
        return model.to(dtype)(images(2)), images(20)

    return given


NET = {"layers": 2, "planes": 8, "penultimate": 8}
SIZES: dict[str, dict[str, Any]] = {"conditional": NET, "multiscale": {**NET, "base": 4, "upscaler_layers": 2}}


def together(*names: str, **options: Any) -> Callable[[torch.dtype], tuple[Distribution, Tensor]]:
    """An ensemble of models of these names."""

    def given(dtype: torch.dtype) -> tuple[Distribution, Tensor]:
        model = MODELS["ensemble"](
            (1, 12), 4, members=[{"name": name, **SIZES.get(name, {})} for name in names], **options
        )
        randomise(model, 1)
        return model.to(dtype)(images(2)), images(20)

    return given


def expanded(dtype: torch.dtype) -> tuple[Distribution, Tensor]:
    return conditional(dtype)(images(2)).expand((5, 2)), images(35).view(7, 5, 2, 1, 12)


def optimum(name: str, **options: Any) -> tuple[Distribution, Tensor]:
    """The truth of a task, which is of float64 whatever is asked for."""
    episode = TASKS[name](**options).episode(index=0, tasks=3, shots=2, queries=5)
    density = TASKS[name](**options).optimum(episode)
    assert density is not None
    return density, episode.query


OTHERS: dict[type, Callable[[torch.dtype], tuple[Distribution, Tensor]]] = {
    SequenceDensity: strings,
    ExpandedDensity: expanded,
    PredictedDensity: optional("wavenet", prediction=3, likelihood="logistic"),
    CountedDensity: optional("bytenet", counts=2),
    SequentialEnsembleDensity: together("conditional", "kernel_density", combine="product", weights="leave_one_out"),
    MixedDensity: together("conditional", "multiscale", combine="mixture", weights="fitted"),
    TemplateDensity: lambda dtype: optimum("templates", size=8, classes=6),
    UrnDensity: lambda dtype: optimum("chains", length=8),
    TransductionDensity: lambda dtype: optimum("transduction", rule="substitution"),
}
TRUTHS = (TemplateDensity, UrnDensity, TransductionDensity)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
def test_densities_that_no_model_returns(kind: type, low: torch.dtype) -> None:
    density, value = OTHERS[kind](torch.float64)
    assert type(density) is kind
    with torch.no_grad():
        precise = density.log_prob(value)
        with torch.autocast("cpu", low):
            rough = OTHERS[kind](torch.float32)[0].log_prob(value)
    assert precise.dtype == torch.float64
    assert rough.dtype == (torch.float64 if kind in TRUTHS else torch.float32)
    assert precise.isfinite().all()
    off = (rough - precise).abs() / density.event_shape.numel()
    assert off.mean() < checks_model.BFLOAT16_MEAN
    assert off.max() < checks_model.BFLOAT16_IMAGE
    assert kind in TRUTHS or off.max() > 1e-6, "autocast did nothing"


def test_no_density_is_left_out() -> None:
    (contract,) = [each for each in CONTRACTS if each.check is checks_model.bfloat16_is_close]
    assert {recipe.name for recipe in recipes_of(contract)} == {recipe.name for recipe in RECIPES}
    reached = set()
    case = Case((2, 4, 5))
    for recipe in recipes_of(contract):
        subject = recipe.build(case)
        reached.add(type(subject(subject.images(2, 1, seed=0))))
    ours = {
        kind for kind in {*below(Density), ExpandedDensity} if kind.__module__.split(".")[0] in ("metadensity", "tasks")
    }
    assert not [kind for kind in BASES if kind not in {*ours, Density}]
    missing = {
        kind for kind in ours - BASES - reached - OTHERS.keys() if not any(issubclass(other, kind) for other in reached)
    }
    assert missing == set(), "densities whose precision under autocast no test looks at"


def test_torchs_own_categorical_is_of_bfloat16() -> None:
    """What all of this is about, and the negative control."""
    logits, value = torch.randn(300, 8) @ torch.eye(8), torch.zeros(300, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.distributions.Categorical(logits=logits @ torch.eye(8)).log_prob(value)
    assert found.dtype == torch.bfloat16
