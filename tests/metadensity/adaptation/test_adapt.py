"""The inner loop: loop, vmap and chunks give one result, and it is the one of plain autograd and finite differences."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from metadensity import FewShotModel
from metadensity.adaptation import (
    AdaptedPixelCNNDensity,
    InnerLoop,
    adapt,
    adapted_density,
    adapted_parameters,
    layer_pattern,
    support_nll,
)
from metadensity.adaptation.adaptive_model import AdaptiveModel
from metadensity.adaptation.losses import features_of_layer, without_each
from metadensity.models import MODELS

EVENT = (1, 4, 5)
SMALL: dict[str, Any] = {"layers": 3, "planes": 4, "penultimate": 4}
WAYS = [
    {"way": "loop"},
    {"way": "loop", "rematerialise": True},
    {"way": "loop", "chunk": 2, "rematerialise": True},
    {"way": "vmap"},
    {"way": "vmap", "chunk": 2},
    {"way": "vmap", "chunk": 2, "rematerialise": True},
]


def images(*shape: int, seed: int) -> Tensor:
    return torch.randint(2, (*shape, *EVENT), generator=torch.Generator().manual_seed(seed))


def build(name: str, **options: Any) -> FewShotModel:
    """A tiny model in float64, the same for every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name](EVENT, 2, **SMALL, **options).double()


def adaptive(name: str, **options: Any) -> AdaptiveModel:
    model = build(name, **options)
    assert isinstance(model, AdaptiveModel)
    return model


def loss_and_gradient(model: FewShotModel, support: Tensor, query: Tensor) -> Tensor:
    """The meta-loss and its gradient in all parameters, as one vector."""
    loss = -model(support).log_prob(query).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)])


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("name", ["maml", "meta", "attention_meta"])
def test_all_ways_give_one_result(name: str, first_order: bool) -> None:
    """Values and meta-gradients of two steps on five tasks, so that chunks of 2 leave one over."""
    model = adaptive(name, steps=2, step_size=0.5, first_order=first_order)
    support, query = images(3, 5, seed=1), images(2, 5, seed=2)
    results = []
    for way in WAYS:
        model.loop = dataclasses.replace(model.loop, **{"chunk": None, "rematerialise": False, **way})
        results.append(loss_and_gradient(model, support, query))
    assert results[0][1:].norm() > 1e-3
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=1e-10)
    model.loop = dataclasses.replace(model.loop, first_order=not first_order)
    assert not torch.allclose(loss_and_gradient(model, support, query), results[0], rtol=0, atol=1e-5)


def by_plain_autograd(model: FewShotModel, support: Tensor, query: Tensor, steps: int, size: float) -> Tensor:
    """MAML of one task in the simplest words: torch.autograd.grad, with the weights put into the module by hand."""
    places = [
        (module, key) for module in model.modules() for key in module._parameters if module._parameters[key] is not None
    ]
    start = [module._parameters[key] for module, key in places]
    own = list(start)
    for _ in range(steps):
        loss = support_nll(model, support)
        gradients = torch.autograd.grad(loss, own, create_graph=True, allow_unused=True, materialize_grads=True)
        own = [tensor - size * gradient for tensor, gradient in zip(own, gradients, strict=True)]
        for (module, key), tensor in zip(places, own, strict=True):
            module._parameters[key] = tensor  # type: ignore[assignment]
    loss = -model.condition(support)._conditional_log_probs(query).sum()
    for (module, key), parameter in zip(places, start, strict=True):
        module._parameters[key] = parameter
    gradients = torch.autograd.grad(loss, start, allow_unused=True, materialize_grads=True)
    return torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)])


@pytest.mark.parametrize("attention", ["additive", "dot"])
@pytest.mark.parametrize("name", ["unconditional", "conditional", "attention"])
def test_any_model_equals_plain_autograd(name: str, attention: str) -> None:
    """What the condition holds (task vectors, keys and values) is computed from the adapted weights as well."""
    model = build(name, **({"attention": attention} if name == "attention" else {}))
    support, query = images(3, 2, seed=1), images(2, 2, seed=2)
    density = adapt(model, support, InnerLoop(steps=2, step_size=0.5))
    loss = -density.log_prob(query).sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    found = torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)])
    expected = [by_plain_autograd(model, support[:, [i]], query[:, [i]], 2, 0.5) for i in range(2)]
    torch.testing.assert_close(found, expected[0] + expected[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("maml", {"steps": 2}),
        ("maml", {"learn_step_sizes": True, "rematerialise": True}),
        ("meta", {}),
        ("attention_meta", {"inner": "support"}),
        ("attention_meta", {"feature_layer": 3}),
    ],
    ids=str,
)
def test_meta_gradients_are_those_of_finite_differences(name: str, options: dict[str, Any]) -> None:
    """In three random directions through all parameters, central differences in float64."""
    model = build(name, step_size=0.5, **options)
    support, query = images(2, 2, seed=3), images(2, 2, seed=4)
    gradient = loss_and_gradient(model, support, query)[1:]
    parameters = list(model.parameters())
    start = torch.nn.utils.parameters_to_vector(parameters).detach()
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        direction = torch.randn(len(start), generator=generator, dtype=torch.float64)
        losses = []
        for shift in (1e-6, -1e-6):  # at ten times as much some direction crosses the kink of a unit
            torch.nn.utils.vector_to_parameters(start + shift * direction, parameters)
            losses.append(-float(model(support).log_prob(query).detach().mean()))
        slope = (losses[0] - losses[1]) / 2e-6
        assert float(gradient @ direction) == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", ["maml", "meta", "attention_meta"])
def test_zero_shots_and_zero_steps_are_the_prior(name: str) -> None:
    model = adaptive(name, step_size=0.5)
    query = images(2, 3, seed=1)
    prior = model.base(images(0, 3, seed=0)).log_prob(query)
    assert torch.equal(model(images(0, 3, seed=0)).log_prob(query), prior)
    support = images(2, 3, seed=2)
    model.loop = dataclasses.replace(model.loop, steps=0)
    assert torch.equal(model(support).log_prob(query), model.base(support).log_prob(query))


@pytest.mark.parametrize("first_order", [False, True])
def test_adaptation_does_not_depend_on_the_grad_mode(first_order: bool) -> None:
    model = adaptive("maml", steps=2, step_size=0.5, first_order=first_order)
    support, query = images(2, 3, seed=1), images(2, 3, seed=2)
    with torch.no_grad():
        density = model(support)
        quiet = density.log_prob(query)
    assert not quiet.requires_grad
    assert not any(tensor.requires_grad for tensor in density.parameters.values())
    assert torch.equal(quiet, model(support).log_prob(query).detach())
    assert (quiet - model.base(support).log_prob(query)).abs().max() > 1e-3


def test_only_what_the_pattern_names_adapts() -> None:
    model = build("maml", adapts=layer_pattern(2, 3))
    assert isinstance(model, AdaptiveModel)
    density = model(images(2, 3, seed=1))
    names = [name for name, _ in model.base.named_parameters()]
    assert list(density.parameters) == [name for name in names if name.startswith("network.layers.2.")]
    assert all(len(tensor) == 3 for tensor in density.parameters.values())
    with pytest.raises(ValueError, match=r"adapts='nothing' is found in the name of no parameter .* there are network"):
        build("maml", adapts="nothing")
    with pytest.raises(ValueError, match=r"adapts='\(' is no regular expression"):
        build("maml", adapts="(")


def test_each_support_image_is_scored_given_the_others() -> None:
    support = torch.arange(4).view(4, 1, 1, 1, 1)
    assert without_each(support)[:, :, 0, 0, 0].T.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert without_each(support[:1]).shape == (0, 1, 1, 1, 1)
    model, images_ = build("conditional"), images(3, 1, seed=1)
    each = [model(images_[[j for j in range(3) if j != i]]).log_prob(images_[i]) for i in range(3)]
    torch.testing.assert_close(support_nll(model, images_), -torch.stack(each).mean() / 20, rtol=0, atol=1e-12)


def test_features_are_those_of_the_network() -> None:
    """The features of the last layer are what a forward hook on it sees."""
    model = build("attention")
    density: Any = model(images(2, 3, seed=1))
    seen: list[Tensor] = []
    handle = density.network.layers[-1].register_forward_hook(lambda module, inputs, output: seen.append(output[0][-1]))
    pixels = images(6, seed=2)
    density.network(pixels, density.condition)
    handle.remove()
    assert torch.equal(features_of_layer(density.network, pixels, density.condition, 3), seen[0])


def test_layers_above_the_features_stay_shared() -> None:
    density = adaptive("meta", feature_layer=2)(images(1, 2, seed=1))
    assert {name.split(".")[2] for name in density.parameters} == {"0", "1"}


def test_inputs_that_are_none() -> None:
    for bad, message in (
        ({"steps": -1}, "steps=-1; the inner loop takes a whole number of steps"),
        ({"steps": 1.5}, "steps=1.5"),
        ({"step_size": 0.0}, "step_size=0.0; it must be a positive number"),
        ({"step_size": math.inf}, "step_size=inf"),
        ({"way": "map"}, "way='map'; choose one of 'auto', 'loop', 'vmap'"),
        ({"chunk": 0}, "chunk=0; it is a number of tasks at once"),
    ):
        with pytest.raises(ValueError, match=message):
            InnerLoop(**bad)
    for layer in (0, 4, 1.5):
        with pytest.raises(ValueError, match=f"feature_layer={layer}; name a layer from 1 to 3"):
            build("meta", feature_layer=layer)
    with pytest.raises(ValueError, match=r"inner='nll'; choose 'learned' \(as published\) or 'support'"):
        build("attention_meta", inner="nll")
    with pytest.raises(ValueError, match="support has shape"):
        adapt(build("conditional"), images(2, seed=0))


def test_parameters_after_a_step_are_the_ones_computed_by_hand() -> None:
    """theta - step size * gradient, one learned step size a parameter where they are given."""
    model, support = build("unconditional"), images(2, 1, seed=1)
    gradients = torch.autograd.grad(support_nll(model, support), list(model.parameters()), allow_unused=True)
    own = dict(model.named_parameters())
    sizes = {name: torch.full_like(tensor, 0.1 * (1 + i)) for i, (name, tensor) in enumerate(own.items())}
    for step_sizes in (None, sizes):
        found = adapted_parameters(model, support, InnerLoop(step_size=0.7), step_sizes=step_sizes)
        for (name, tensor), gradient in zip(own.items(), gradients, strict=True):
            size = 0.7 if step_sizes is None else step_sizes[name]
            expected = tensor - size * (torch.zeros_like(tensor) if gradient is None else gradient)
            torch.testing.assert_close(found[name][0], expected, rtol=0, atol=1e-12)


class Counter:
    """How often a module is called."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.calls = 0
        module.register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.calls += 1


@pytest.mark.parametrize(
    ("way", "calls"), [({"way": "vmap"}, 1), ({"way": "vmap", "chunk": 2}, 2), ({"way": "loop"}, 3)]
)
@pytest.mark.parametrize("name", ["conditional", "attention"])
def test_an_adapted_density_is_conditioned_once(name: str, way: dict[str, Any], calls: int) -> None:
    """One pass of the encoder a density (a chunk of tasks, a task in the loop), whatever is asked of it then."""
    model, support, query = build(name), images(2, 3, seed=1), images(4, 3, seed=2)
    own = {key: tensor.detach().expand(3, *tensor.shape) for key, tensor in model.named_parameters()}
    counter = Counter(model.encoder)  # type: ignore[arg-type]
    with torch.no_grad():
        density = adapted_density(model, own, support, InnerLoop(**way))
        assert counter.calls == calls
        assert isinstance(density, AdaptedPixelCNNDensity)
        for _ in range(3):
            density.log_prob(query)
            density.sample((2,), generator=torch.Generator().manual_seed(0))
        density.sample_from_uniforms(torch.rand(1, 3, *EVENT), naive=True)
        density.logits(query)
        if density.has_attention:
            density.attention_weights(query)
    assert counter.calls == calls
    torch.testing.assert_close(density.log_prob(query), model(support).log_prob(query), rtol=0, atol=1e-12)


@pytest.mark.parametrize("way", ["loop", "vmap"])
def test_an_adapted_density_says_where_it_looks(way: str) -> None:
    """With the model's own weights for each task it looks where the model does, and elsewhere with others."""
    model, support, query = build("attention"), images(3, 2, seed=1), images(4, 2, seed=2)
    own = {key: tensor.detach().expand(2, *tensor.shape) for key, tensor in model.named_parameters()}
    plain: Any = model(support)
    same: Any = adapted_density(model, own, support, InnerLoop(way=way))
    assert same.has_attention
    torch.testing.assert_close(same.attention_weights(query), plain.attention_weights(query), rtol=0, atol=1e-12)
    moved: Any = adapt(model, support, InnerLoop(way=way, step_size=2.0))
    weights = moved.attention_weights(query)
    torch.testing.assert_close(weights.sum(2), torch.ones_like(weights[:, :, 0]))
    assert (weights - plain.attention_weights(query)).abs().max() > 1e-6
    blind: Any = adapt(build("conditional"), support)
    with pytest.raises(ValueError, match="looks at no supports"):
        blind.attention_weights(query)


@pytest.mark.parametrize("name", ["support_mean", "support_mixture", "multiscale", "ensemble", "maml"])
@pytest.mark.parametrize("way", [{"way": "vmap"}, {"way": "vmap", "chunk": 2, "rematerialise": True}], ids=str)
def test_any_density_is_taken_apart_and_put_together(name: str, way: dict[str, Any]) -> None:
    """Whatever a density is made of: values, meta-gradients and draws are those of the loop over tasks."""
    options: dict[str, Any] = {"base": 2, "upscaler_layers": 2} if name == "multiscale" else {}
    kind = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = name.startswith("support")
        model = kind(EVENT, 2, **({} if plain else {**SMALL, **options})).double()
    support, query = images(2, 3, seed=1), images(2, 3, seed=2)
    found = []
    for each in ({"way": "loop"}, way):
        density = adapt(model, support, InnerLoop(step_size=0.5, **each))
        loss = -density.log_prob(query).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
        found.append(torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)]))
        draws = density.sample((5,), generator=torch.Generator().manual_seed(3)).double()
        found[-1] = torch.cat([found[-1], draws.flatten()])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-10)
    assert (found[0] != 0).any()
