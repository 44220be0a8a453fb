"""Hooks, pruning, weight norms and adapters act on every part of a network, whatever a fused path might leave out."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from metadensity import FewShotModel, native
from metadensity.likelihoods import LIKELIHOODS
from metadensity.models import MODELS
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.causal import CausalConv
from metadensity.nn.convolution import CONV

EVENT, LEVELS = (2, 3, 4), 3
SUPPORT, QUERY = (torch.randint(3, (2, 2, *EVENT), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
NETWORKS = ["unconditional", "conditional", "attention", "aligned", "multiscale", "ensemble"]
RECURRENT = ["row_lstm", "diagonal_bilstm"]


def build(name: str, **options: Any) -> FewShotModel:
    sizes: dict[str, Any] = {"layers": 2, "planes": 4, "penultimate": 4}
    more = {"base": 2, "upscaler_layers": 2} if name == "multiscale" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MODELS[name](EVENT, LEVELS, **sizes, **more, **options)


def convolutions(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, (CausalConv, *CONV.values(), nn.Linear)))


def losses(name: str, change: Callable[[nn.Module], object], steps: int = 3) -> list[float]:
    """What plain gradient descent on a changed model sees."""
    model, found = build(name), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for the vectors that spectral norms draw
        for module in list(convolutions(model)):
            change(module)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = -model(SUPPORT).log_prob(QUERY).mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


def old_norm(norm: Callable[..., object]) -> Callable[[nn.Module], object]:
    """torch's norms that are hooks, which it has deprecated and people use."""

    def change(module: nn.Module) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return norm(module)

    return change


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", [*NETWORKS, *RECURRENT])
def test_hooks_of_all_parts_fire(name: str, likelihood: str) -> None:
    model, calls = build(name, likelihood=likelihood), Counter[str]()
    for part, module in model.named_modules():
        module.register_forward_hook(lambda *_, part=part: calls.update([part]))
    density = model(SUPPORT)
    density.log_prob(QUERY)
    parts = {id(module): part for part, module in model.named_modules()}
    # What is masked is called for its weight alone.
    silent = [parts[id(module)] for module in convolutions(model) if not calls[parts[id(module)]]]
    assert silent == []


@pytest.mark.parametrize(
    "change",
    [
        lambda module: prune.l1_unstructured(module, "weight", 0.5),
        old_norm(nn.utils.weight_norm),
        old_norm(nn.utils.spectral_norm),
        parametrizations.weight_norm,
    ],
    ids=["pruned", "weight_norm", "spectral_norm", "parametrised"],
)
@pytest.mark.parametrize("name", ["attention", "aligned", "diagonal_bilstm"])
def test_changed_weights_train_with_and_without_kernels(name: str, change: Callable[[nn.Module], object]) -> None:
    found = losses(name, change)
    with native.disabled():
        assert losses(name, change) == pytest.approx(found, rel=1e-5)
    assert found[2] < found[0]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", ["attention", "multiscale", "row_lstm"])
def test_samples_are_those_of_the_pruned_network(name: str, likelihood: str) -> None:
    """Pruned in place, without hooks, it is the same network: the samplers draw the same of both."""
    model, permanent = build(name, likelihood=likelihood), build(name, likelihood=likelihood)
    uniforms = torch.rand(2, 2, *EVENT, generator=torch.Generator().manual_seed(3))
    for module, other in zip(list(convolutions(model)), list(convolutions(permanent)), strict=True):
        prune.l1_unstructured(module, "weight", 0.5)
        prune.l1_unstructured(other, "weight", 0.5)
        prune.remove(other, "weight")
    plain = build(name, likelihood=likelihood)(SUPPORT)
    with torch.no_grad():
        for module in convolutions(model):
            module.weight_orig.mul_(1.5)  # type: ignore[operator,union-attr]
        for module in convolutions(permanent):
            module.weight.mul_(1.5)  # type: ignore[operator,union-attr]
        density, expected = model(SUPPORT), permanent(SUPPORT)
        drawn, wanted = (each.sample_from_uniforms(uniforms) for each in (density, expected))  # type: ignore[attr-defined]
        torch.testing.assert_close(density.log_prob(QUERY), expected.log_prob(QUERY), rtol=1e-5, atol=1e-5)
    assert torch.equal(drawn, wanted)
    assert not torch.equal(drawn, plain.sample_from_uniforms(uniforms))  # type: ignore[attr-defined]


def test_a_hook_that_changes_a_layer_changes_samples_as_it_does_likelihoods() -> None:
    model: Any = build("attention", attention="dot")
    uniforms = torch.rand(4, 2, *EVENT, generator=torch.Generator().manual_seed(3))
    before = model(SUPPORT).sample_from_uniforms(uniforms)
    for part in (model.network.layers[1], model.network.penult, model.network.attention.query, model.network.head):
        hook = part.register_forward_hook(lambda _, given, out: _times(out, -5.0))
        density = model(SUPPORT)
        drawn = density.sample_from_uniforms(uniforms)
        assert torch.equal(drawn, density.sample_from_uniforms(uniforms, naive=True))
        assert not torch.equal(drawn, before) or part is model.network.attention.query  # which hardly matters here
        hook.remove()
    assert torch.equal(model(SUPPORT).sample_from_uniforms(uniforms), before)


def _times(out: Any, factor: float) -> Any:
    return out * factor if isinstance(out, Tensor) else (out[0], out[1] * factor)


def test_an_adapter_in_place_of_a_part_is_called() -> None:
    """As low-rank adapters stand in for what they wrap: it has the weights of what is in it, and does more."""

    class Adapter(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base = base
            self.scale = nn.Parameter(torch.ones(()))

        @property
        def weight(self) -> Any:
            return self.base.weight

        @property
        def bias(self) -> Any:
            return self.base.bias

        def forward(self, x: Tensor) -> Any:
            return self.scale * self.base(x)

    model: Any = build("conditional")
    before = model(SUPPORT).log_prob(QUERY)
    layer = model.network.layers[1]
    layer.convs[0], layer.out, layer.links[0] = Adapter(layer.convs[0]), Adapter(layer.out), Adapter(layer.links[0])
    density = model(SUPPORT)
    torch.testing.assert_close(density.log_prob(QUERY), before, rtol=1e-4, atol=1e-4)
    density.log_prob(QUERY).sum().backward()
    for adapter in (layer.convs[0], layer.out, layer.links[0]):
        assert adapter.scale.grad.abs() > 1e-4
    uniforms = torch.rand(2, 2, *EVENT, generator=torch.Generator().manual_seed(3))
    assert torch.equal(density.sample_from_uniforms(uniforms), density.sample_from_uniforms(uniforms, naive=True))


def test_networks_as_they_are_keep_the_fast_path() -> None:
    for name in NETWORKS:
        networks = [module for module in build(name).modules() if isinstance(module, PixelCNN)]
        assert networks
        assert all(network.is_plain for network in networks)
    model: Any = build("conditional")
    parametrizations.weight_norm(model.network.penult)
    assert model.network.is_plain  # its weight is what the parametrisation makes of it whenever it is read
    hook = model.network.layers[0].out.register_forward_hook(lambda *_: None)
    assert not model.network.is_plain
    hook.remove()
    assert model.network.is_plain
