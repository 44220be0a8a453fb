"""A density is that of the parameters it was made with; the contract of all models is in tests/contracts."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from metadensity import Density, FewShotModel
from metadensity.adaptation import InnerLoop, adapt, adapted_density
from metadensity.models import MODELS
from tasks.interop import imports
from tests.metadensity.toys import NETWORKS, OURS

EVENT = (1, 6, 6)
LEFT_OUT = importlib.util.find_spec("learn2learn") is None and (Path(sys.prefix) / "learn2learn-not-built").exists()
SMALL: dict[str, Any] = {"layers": 2, "planes": 4, "penultimate": 4}
SUPPORT, QUERY = (torch.randint(2, (2, 3, *EVENT), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))


def build(name: str, seed: int = 0) -> FewShotModel:
    """A small float32 model, which the native kernels take, with weights that are nowhere zero."""
    options = (
        {**SMALL, **({"base": 3, "upscaler_layers": 2} if name == "multiscale" else {})} if name in NETWORKS else {}
    )
    model, generator = MODELS[name](EVENT, 2, **options), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def score(density: Density) -> Tensor:
    return density.log_prob(QUERY).detach()


@pytest.mark.parametrize("name", OURS)
def test_a_functional_call_gives_the_density_of_its_parameters(name: str) -> None:
    """As users of torch.func write it, in float32 and with the native kernels: value and gradient."""
    model, other = build(name), build(name, seed=1)
    parameters = {key: tensor.detach().clone() for key, tensor in other.named_parameters()}
    density = torch.func.functional_call(model, parameters, (SUPPORT,))
    assert score(density) == pytest.approx(score(other(SUPPORT)).numpy(), rel=1e-4)
    assert not torch.allclose(score(density), score(model(SUPPORT)), rtol=1e-3)
    other(SUPPORT).log_prob(QUERY).sum().backward()

    def loss(given: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, given, (SUPPORT,)).log_prob(QUERY).sum()

    found = torch.func.grad(loss)(parameters)
    for key, parameter in other.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[key], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_density_kept_over_an_optimisers_step_says_what_to_do(name: str) -> None:
    model = build(name)
    density = model(SUPPORT)
    before = score(density)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    (-density.log_prob(QUERY).mean()).backward()
    optimizer.step()
    if name == "maml":  # all of its parameters are a task's own
        assert torch.equal(score(density), before)
        return
    with pytest.raises(RuntimeError, match=r"\w+ was written over.*Make a new one: density = model\(support\)"):
        density.log_prob(QUERY)
    with pytest.raises(RuntimeError, match="was written over"):
        density.sample((2,))
    assert not torch.equal(score(model(SUPPORT)), before)


def test_weights_that_were_loaded_are_seen_and_those_of_others_are_not() -> None:
    model, other = build("attention"), build("attention", seed=1)
    kept, density = model(SUPPORT), other(SUPPORT)
    other.load_state_dict(model.state_dict())
    moved = build("attention")
    others = moved(SUPPORT)
    torch.nn.utils.vector_to_parameters(torch.zeros(sum(map(torch.numel, moved.parameters()))), moved.parameters())
    with pytest.raises(RuntimeError, match="was written over"):
        others.log_prob(QUERY)
    assert score(kept).isfinite().all()  # it was read, not written
    with pytest.raises(RuntimeError, match="The network of this density, PixelCNN, has changed"):
        density.log_prob(QUERY)


def test_a_network_that_was_rebuilt_is_named() -> None:
    for change in (
        lambda part: prune.l1_unstructured(part, "weight", 0.5),
        parametrizations.weight_norm,
    ):
        model = build("conditional")
        density = model(SUPPORT)
        change(model.network.penult)  # type: ignore[operator]
        with pytest.raises(RuntimeError, match=r"it was rebuilt, by pruning.*Make a new one"):
            density.log_prob(QUERY)


def test_a_layer_that_was_exchanged_does_not_matter() -> None:
    model: Any = build("conditional")
    density = model(SUPPORT)
    before, layer = score(density), model.network.layers[1]
    model.network.layers[1] = copy.deepcopy(layer).requires_grad_(False)
    with torch.no_grad():
        model.network.layers[1].out.weight.zero_()
    assert torch.equal(score(density), before)
    assert not torch.equal(score(model(SUPPORT)), before)


@pytest.mark.parametrize("name", ["attention", "multiscale", "ensemble"])
def test_a_copy_of_a_density_is_the_same(name: str) -> None:
    model = build(name)
    with torch.no_grad():
        density = model(SUPPORT)
    before, copied = score(density), copy.deepcopy(density)
    assert torch.equal(score(copied), before)
    assert torch.equal(score(pickle.loads(pickle.dumps(density))), before)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(score(copied), before)
    with pytest.raises(RuntimeError, match="was written over"):
        copy.deepcopy(density)


def test_an_adapted_density_is_not_copied() -> None:
    """Its functions would go on with the network that they were made with."""
    density = build("meta")(SUPPORT)
    for copier in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"neither copied nor stored. Adapt again"):
            copier(density)


def test_parameters_of_tasks_may_not_be_written_over_either() -> None:
    model = build("conditional")
    own = {name: tensor.detach().expand(3, *tensor.shape).clone() for name, tensor in model.named_parameters()}
    density = adapted_density(model, own, SUPPORT, InnerLoop())
    assert score(density).isfinite().all()
    own["network.penult.weight"].add_(1)
    with pytest.raises(RuntimeError, match=r"network.penult.weight was written over"):
        density.log_prob(QUERY)


@pytest.mark.parametrize("way", ["loop", "vmap"])
@pytest.mark.parametrize("rematerialise", [False, True])
def test_an_adapted_density_holds_what_its_tasks_share(way: str, rematerialise: bool) -> None:
    model, other = build("conditional"), build("conditional", seed=1)
    density = adapt(model, SUPPORT, InnerLoop(adapts=r"^encoder\.", way=way, rematerialise=rematerialise))
    before = score(density)
    others = {name: tensor.detach() for name, tensor in other.named_parameters()}

    class Asked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self) -> Tensor:
            return score(density)

    found = torch.func.functional_call(Asked(), {f"model.{name}": tensor for name, tensor in others.items()}, ())
    assert torch.equal(found, before)


def test_what_is_put_in_place_of_parameters_comes_back() -> None:
    """Also where the density fails on the way: the model is as it was."""
    model, other = build("attention"), build("attention", seed=1)
    density = torch.func.functional_call(model, {key: t.detach() for key, t in other.named_parameters()}, (SUPPORT,))
    own = dict(model.named_parameters())
    with pytest.raises(ValueError, match="must end in"):
        density.sample_from_uniforms(torch.rand(3, 3))
    model.network.head.register_forward_hook(lambda *_: 1 / 0)  # type: ignore[union-attr]
    with pytest.raises(ZeroDivisionError):
        density.log_prob(QUERY)
    assert all(own[key] is tensor for key, tensor in model.named_parameters())


def test_weights_made_in_inference_mode_are_taken() -> None:
    with torch.inference_mode():
        model = build("conditional")
        density = model(SUPPORT)
        expected = density.log_prob(QUERY)
    with torch.no_grad():
        assert torch.equal(score(density), expected)


def test_a_compiled_use_looks_at_the_parameters_too() -> None:
    model = build("conditional")
    with torch.no_grad():
        density = model(SUPPORT)
    compiled = torch.compile(density.log_prob, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(QUERY), score(density))
        for parameter in model.parameters():
            parameter.add_(1)
        with pytest.raises(RuntimeError, match="was written over"):
            compiled(QUERY)


@pytest.mark.skipif(LEFT_OUT, reason="learn2learn could not be built")
@pytest.mark.parametrize("name", ["unconditional", "conditional", "attention", "multiscale", "ensemble"])
def test_a_density_of_learn2learns_learner_stays_what_it_was_when_the_learner_adapts(name: str) -> None:
    learner = imports.import_learn2learn().algorithms.MAML(build(name), lr=0.5).clone()
    density = learner(SUPPORT)
    before = score(density)
    learner.adapt(-density.log_prob(QUERY).mean())
    assert torch.equal(score(density), before)
    assert not torch.allclose(score(learner(SUPPORT)), before, rtol=1e-3)
