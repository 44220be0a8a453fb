"""Second derivatives: of every model and likelihood, through autograd and through torch.func, against differences.

An inner loop of second order needs them. torch 2.13.0 gives zeros in silence for a second derivative through torch.func
of an ``autograd.Function`` whose backward pass is marked ``once_differentiable``, so each of ours is looked at.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metadensity
from metadensity import FewShotModel
from metadensity.adaptation import InnerLoop
from metadensity.adaptation.adaptive_model import AdaptiveModel
from metadensity.likelihoods import LIKELIHOODS
from metadensity.models import MODELS
from tests.contracts.subjects import Case, Recipe, randomise

# Of the attention of supports and the likelihoods, each once; the models in which there is no choice once.
SUBJECTS = [
    *(Recipe(name) for name in MODELS),
    Recipe("attention", {"attention": "dot"}),
    *(Recipe("attention", {"attention": "additive", "likelihood": each}) for each in LIKELIHOODS),
    Recipe("attention", {"attention": "additive", "first_kernel": 5, "prototypes": 4}),
]
CASE = Case((2, 3, 4), 3)
# Functions whose backward pass cannot be differentiated; torch.func refuses them, as they have no setup_context.
ONCE = {"metadensity.adaptation.checkpointing._Rematerialised", "metadensity.adaptation.reptile._Reptile"}

Parameters = dict[str, Tensor]
Gradient = Callable[[Parameters], Parameters]


class Loss(nn.Module):
    """The outer loss of one episode, as a module: the density is made and used inside one call."""

    def __init__(self, model: FewShotModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, support: Tensor, query: Tensor) -> Tensor:
        return self.model.loss(support, query).mean()


def loss_of(model: FewShotModel) -> Callable[[Parameters], Tensor]:
    whole = Loss(model)
    subject = Recipe("independent").build(CASE)
    episode = subject.images(2, 2, seed=1), subject.images(2, 2, seed=2)
    return lambda parameters: torch.func.functional_call(whole, parameters, episode)


def by_differences(gradient: Gradient, parameters: Parameters, along: Parameters, width: float = 1e-6) -> Parameters:
    """The derivative of ``gradient`` in a direction, by central differences."""
    ahead, behind = (
        gradient({name: tensor + sign * width * along[name] for name, tensor in parameters.items()}) for sign in (1, -1)
    )
    return {name: (ahead[name] - behind[name]) / (2 * width) for name in parameters}


def by_autograd(loss: Callable[[Parameters], Tensor], create_graph: bool = False) -> Gradient:
    def gradient(parameters: Parameters) -> Parameters:
        own = parameters if create_graph else {n: t.detach().requires_grad_() for n, t in parameters.items()}
        found = torch.autograd.grad(
            loss(own), list(own.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
        return dict(zip(own, found, strict=True))

    return gradient


def dot(one: Parameters, other: Parameters) -> Tensor:
    return sum((one[name] * other[name]).sum() for name in one)  # type: ignore[return-value]


def norm(parameters: Parameters) -> float:
    return float(sum(tensor.square().sum() for tensor in parameters.values()) ** 0.5)


@pytest.mark.parametrize("recipe", SUBJECTS, ids=str)
def test_second_derivatives_equal_differences_of_the_first(recipe: Recipe) -> None:
    model = recipe.build(CASE, torch.float64).model
    randomise(model, 3)
    loss = loss_of(model)
    parameters = {f"model.{n}": t.detach().clone() for n, t in model.named_parameters()}
    generator = torch.Generator().manual_seed(4)
    along = {n: torch.randn(t.shape, generator=generator, dtype=t.dtype) for n, t in parameters.items()}
    expected = by_differences(by_autograd(loss), parameters, along)
    assert norm(expected) > 1e-6, "there is no second derivative here, which tests nothing"

    own = {n: t.clone().requires_grad_() for n, t in parameters.items()}
    slope = dot(by_autograd(loss, create_graph=True)(own), along)
    found = torch.autograd.grad(slope, list(own.values()), allow_unused=True, materialize_grads=True)
    through_autograd = dict(zip(own, found, strict=True))
    through_func = torch.func.grad(lambda p: dot(torch.func.grad(loss)(p), along))(parameters)
    for way, second in {"autograd": through_autograd, "torch.func": through_func}.items():
        off = norm({n: second[n] - expected[n] for n in expected})
        assert off < 1e-4 * norm(expected), f"{way} is off by {off / norm(expected):.2e} of {norm(expected):.2e}"


@pytest.mark.parametrize("setting", ["rematerialise", "reptile"])
def test_what_has_no_second_derivative_refuses_it(setting: str) -> None:
    """torch's ``once_differentiable`` would give the first derivative as a constant here, and of that no derivative."""
    model = Recipe("maml").build(CASE, torch.float64).model
    assert isinstance(model, AdaptiveModel)
    if setting == "reptile":
        model.reptile = True
    else:
        model.loop = InnerLoop(rematerialise=True)
    loss = loss_of(model)
    own = {f"model.{n}": t.detach().clone().requires_grad_() for n, t in model.named_parameters()}
    assert norm(by_autograd(loss)(own)) > 0
    with pytest.raises(RuntimeError, match=f"cannot be differentiated .*{setting}=False"):
        by_autograd(loss, create_graph=True)(own)
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.grad(loss)({n: t.detach() for n, t in own.items()})


def functions() -> Iterator[type[torch.autograd.Function]]:
    """Every ``autograd.Function`` of the library."""
    for module in pkgutil.walk_packages(metadensity.__path__, "metadensity."):
        importlib.import_module(module.name)
    left: list[Any] = [torch.autograd.Function]
    while left:
        for kind in left.pop().__subclasses__():
            left.append(kind)
            if kind.__module__.startswith("metadensity."):
                yield kind


def test_functions_that_cannot_be_differentiated_twice_are_refused_by_torch_func() -> None:
    found = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in functions()}
    assert found.keys() >= ONCE
    for name, kind in found.items():
        backward: Any = kind.backward
        assert "once_differentiable" not in backward.__code__.co_qualname, f"{name} would be constant in silence"
        if name in ONCE:
            assert "require_once" in backward.__code__.co_names
            assert kind.setup_context is torch.autograd.Function.setup_context, f"{name} would be zero in torch.func"
        else:
            assert "require_once" not in backward.__code__.co_names, name


def test_the_marker_of_torch_would_be_found() -> None:
    """The negative control of the look at the library's functions."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    assert "once_differentiable" in Once.backward.__code__.co_qualname  # type: ignore[attr-defined]
