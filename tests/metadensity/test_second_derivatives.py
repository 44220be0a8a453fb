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
import torch.nn.functional as F
from torch import Tensor, nn

import metadensity
from metadensity import FewShotModel
from metadensity.adaptation import InnerLoop, adapted_parameters
from metadensity.adaptation.adaptive_model import AdaptiveModel
from metadensity.adaptation.second_order import _functions
from metadensity.densities.independent import IndependentDensity
from metadensity.likelihoods import LIKELIHOODS, Likelihood
from metadensity.models import MODELS, IndependentPixels
from metadensity.networks.predicted import RelativeLogistics
from metadensity.nn.functional.additive_attention import additive_read, additive_scores
from metadensity.nn.functional.dot_attention import dot_read
from metadensity.nn.functional.gate import gate
from metadensity.nn.functional.prototype_attention import prototype_attention
from metadensity.testing.subjects import Case, randomise
from tests.contracts.subjects import Recipe
from tests.metadensity.native.test_gated_layer import Case as NativeCase
from tests.metadensity.native.test_gated_layer import needs_compiler
from tests.metadensity.native.test_lstm_scan import Case as ScanCase
from tests.metadensity.native.test_sequence_layers import Case as SequenceCase

# Of the attention of supports and the likelihoods, each once; the models in which there is no choice once.
SUBJECTS = [
    *(Recipe(name) for name in MODELS),
    Recipe("attention", {"attention": "dot"}),
    *(Recipe("attention", {"attention": "additive", "likelihood": each}) for each in LIKELIHOODS),
    Recipe("attention", {"attention": "additive", "first_kernel": 5, "prototypes": 4}),
    Recipe("wavenet", {"prediction": 3, "likelihood": "logistic"}),
]
CASE, SEQUENCE = Case((2, 3, 4), 3), Case((1, 12), 3)
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
    subject = Recipe("independent").build(Case(model.event_shape, model.levels))
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


def outer(parameters: Parameters, loss: Callable[[Parameters], Tensor], way: str = "torch.func") -> Tensor:
    """The loss after a step of gradient descent."""
    take = torch.func.grad(loss) if way == "torch.func" else by_autograd(loss, create_graph=True)
    if way != "torch.func":
        parameters = {n: t if t.requires_grad else t.clone().requires_grad_() for n, t in parameters.items()}
    gradients = take(parameters)
    return loss({n: t - 0.1 * gradients[n] for n, t in parameters.items()})


def slope_of_outer(
    loss: Callable[[Parameters], Tensor], parameters: Parameters, along: Parameters, way: str, second_order: bool
) -> float:
    """The derivative of the outer loss in a direction; of first order: as if the inner gradient were a constant."""
    if not second_order:
        gradients = by_autograd(loss)(parameters)
        step = {n: t - 0.1 * gradients[n] for n, t in parameters.items()}
        return dot(by_autograd(loss)(step), along).item()
    if way == "torch.func":
        return dot(torch.func.grad(lambda p: outer(p, loss))(parameters), along).item()
    return dot(by_autograd(lambda p: outer(p, loss, way))(parameters), along).item()


def dot(one: Parameters, other: Parameters) -> Tensor:
    return sum((one[name] * other[name]).sum() for name in one)  # type: ignore[return-value]


def norm(parameters: Parameters) -> float:
    return float(sum(tensor.square().sum() for tensor in parameters.values()) ** 0.5)


@pytest.mark.parametrize("recipe", SUBJECTS, ids=str)
def test_second_derivatives_equal_differences_of_the_first(recipe: Recipe) -> None:
    case = SEQUENCE if "prediction" in recipe.options else CASE
    model = recipe.build(case, torch.float64).model
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

    if "likelihood" not in recipe.options:
        return  # models that step by themselves; and a step of others may cross kinks of units
    # The outer loss itself, after a step of second order: its slope is that of its values, and not of first order.
    for way in ("autograd", "torch.func"):
        found, first = (slope_of_outer(loss, parameters, along, way, second_order=each) for each in (True, False))
        ahead, behind = (
            float(outer({n: t + h * along[n] for n, t in parameters.items()}, loss)) for h in (1e-6, -1e-6)
        )
        expected_slope = (ahead - behind) / 2e-6
        assert abs(found - expected_slope) < 1e-4 * max(abs(expected_slope), abs(first)), way
        assert abs(first - expected_slope) > 2e-4 * abs(expected_slope), "first order would pass as well"


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


# The library's other Functions as their callers use them, with shapes of inputs: all but native layers, in float32.
APPLIED: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "additive_attention._AdditiveScores": (additive_scores, ((2, 5, 3), (2, 4, 3), (2, 3))),
    "additive_attention._read": (additive_read, ((2, 5, 3), (2, 4, 3), (2, 4, 2), (3,))),
    "dot_attention._read": (dot_read, ((2, 5, 3), (2, 4, 3), (2, 4, 2))),
    "prototype_attention._read": (prototype_attention, ((2, 3, 5, 2), (2, 3, 4, 2), (2, 5, 4))),
    "gate._Gate": (gate, ((2, 6, 4, 4),)),
}
NATIVE: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "gated_layer._NativeLayer": (NativeCase(), NativeCase.layer),
    "sequence_layers._SequenceLayers": (SequenceCase(layers=3), SequenceCase.net),
    "lstm_scan._Scan": (ScanCase(context=3), ScanCase.layer),
}


def names(loss: Tensor) -> set[str]:
    """The Functions that a loss goes through."""
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in _functions(loss)}


@pytest.mark.parametrize("name", APPLIED)
def test_second_derivatives_of_every_function(name: str) -> None:
    function, shapes = APPLIED[name]
    generator = torch.Generator().manual_seed(0)

    def loss(inputs: Parameters) -> Tensor:
        return (3 * function(*inputs.values())).cos().sum()

    def drawn() -> Parameters:
        return {f"{k}": torch.randn(shape, generator=generator).double() for k, shape in enumerate(shapes)}

    inputs, along = drawn(), drawn()
    assert f"metadensity.nn.functional.{name}" in names(loss({n: t.requires_grad_() for n, t in drawn().items()}))
    ahead, behind = (float(outer({n: t + h * along[n] for n, t in inputs.items()}, loss)) for h in (1e-6, -1e-6))
    expected = (ahead - behind) / 2e-6
    for way in ("autograd", "torch.func"):
        found, first = (slope_of_outer(loss, inputs, along, way, second_order=each) for each in (True, False))
        assert abs(found - expected) < 1e-6 * (abs(expected) + abs(first)), way
        assert abs(first - expected) > 1e-2 * abs(expected), "first order would pass as well"


@needs_compiler
@pytest.mark.parametrize("name", NATIVE)
def test_second_derivatives_of_native_layers(name: str) -> None:
    """In float32, which is all that the kernel takes, so differences are rough; torch.func takes the plain form."""
    case, build = NATIVE[name]
    layer, given = build(case), case.inputs()
    generator = torch.Generator().manual_seed(0)

    def loss(inputs: Parameters) -> Tensor:
        return 10 * case.loss(case.run(layer, inputs))  # so that the step is one that curves

    assert f"metadensity.nn.functional.{name}" in names(loss(given))
    inputs = {n: t.detach() for n, t in given.items()}
    along = {n: torch.randn(t.shape, generator=generator) for n, t in inputs.items()}
    ahead, behind = (
        outer({n: t + h * along[n] for n, t in inputs.items()}, loss, "autograd").item() for h in (3e-3, -3e-3)
    )
    expected = (ahead - behind) / 6e-3
    for way in ("autograd", "torch.func"):
        found, first = (slope_of_outer(loss, inputs, along, way, second_order=each) for each in (True, False))
        assert abs(found - expected) < 2e-2 * abs(expected), way
        assert abs(first - expected) > 6e-2 * abs(expected), "first order would pass as well"


def test_no_function_and_no_likelihood_is_left_out() -> None:
    found = {f"{kind.__module__}.{kind.__qualname__}" for kind in functions()}
    assert found == ONCE | {f"metadensity.nn.functional.{name}" for name in (*NATIVE, *APPLIED)}
    ours = {kind for kind in below(Likelihood) if kind.__module__.startswith("metadensity.")}
    assert ours == {*LIKELIHOODS.values(), RelativeLogistics}  # the latter with a prediction alone, see SUBJECTS
    assert {recipe.options["likelihood"] for recipe in SUBJECTS if "likelihood" in recipe.options} == LIKELIHOODS.keys()
    assert {recipe.name for recipe in SUBJECTS} == MODELS.keys()


class OnceCube(torch.autograd.Function):
    """x + x ** 3 / 100, with torch's mark; torch.func and vmap take it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x + x**3 / 100

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (1 + 3 * ctx.saved_tensors[0] ** 2 / 100)


class Marked(IndependentPixels):
    """Logits that go through ``OnceCube``, or through the same in torch's operations."""

    mark = True

    def condition(self, support: Tensor) -> Any:
        logits = OnceCube.apply(self.logits) if self.mark else self.logits + self.logits**3 / 100
        return IndependentDensity(logits[None], tasks=support.shape[1])


@pytest.mark.parametrize("way", ["loop", "vmap"])
def test_an_inner_loop_of_second_order_refuses_what_torch_takes_for_zero(way: str) -> None:
    support = torch.randint(3, (2, 2, 2, 3, 4), generator=torch.Generator().manual_seed(0))

    def meta_gradient(mark: bool, first_order: bool) -> Tensor:
        torch.manual_seed(0)
        model = Marked((2, 3, 4), 3)
        randomise(model, 3)
        model.mark = mark
        loop = InnerLoop(steps=2, way=way, first_order=first_order)
        adapted = adapted_parameters(model, support, loop)
        loss = torch.stack([tensor.square().sum() for tensor in adapted.values()]).sum()
        return torch.autograd.grad(loss, [*model.parameters()])[0]

    with pytest.raises(
        RuntimeError, match=r"Marked goes through .*OnceCube, .* once_differentiable: .*first_order=True"
    ):
        meta_gradient(mark=True, first_order=False)
    torch.testing.assert_close(meta_gradient(True, first_order=True), meta_gradient(False, first_order=True))
    assert not torch.allclose(meta_gradient(False, first_order=False), meta_gradient(False, first_order=True))


def test_a_loss_without_second_derivatives_is_refused_as_well() -> None:
    """torch's linear_cross_entropy with options: by autograd its gradient is a constant in silence, here an error."""
    model = IndependentPixels((2, 3, 4), 3)
    support = torch.zeros(4, 2, 2, 3, 4, dtype=torch.long)
    features = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))

    def in_chunks(model: nn.Module, images: Tensor) -> Tensor:
        weight = next(model.parameters()).flatten()[:, None].expand(-1, 5).contiguous()
        options = nn.LinearCrossEntropyOptions()  # type: ignore[attr-defined]
        loss: Tensor = F.linear_cross_entropy(features, weight, torch.arange(8), options=options)  # type: ignore[attr-defined]
        return loss

    parameter = next(model.parameters())
    (gradient,) = torch.autograd.grad(in_chunks(model, support), parameter, create_graph=True)
    assert gradient.abs().sum() > 0
    assert not gradient.requires_grad, "torch has come to differentiate it: say so where it is refused"
    with pytest.raises(RuntimeError, match="setup_context"):
        adapted_parameters(model, support, InnerLoop(way="loop"), in_chunks)


def below(kind: type) -> Iterator[type]:
    """All subclasses."""
    for each in kind.__subclasses__():
        yield each
        yield from below(each)


def functions() -> Iterator[type[torch.autograd.Function]]:
    """Every ``autograd.Function`` of the library."""
    for module in pkgutil.walk_packages(metadensity.__path__, "metadensity."):
        importlib.import_module(module.name)
    yield from (kind for kind in below(torch.autograd.Function) if kind.__module__.startswith("metadensity."))


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
