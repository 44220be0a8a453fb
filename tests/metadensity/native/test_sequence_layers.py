"""Gated layers over sequences in the native kernel against torch: values, all gradients, and when it stays away."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from metadensity.models import WaveNet
from metadensity.native import disabled, sequence_layers
from metadensity.nn.causal import GatedLayer, gated_layers
from metadensity.nn.functional import sequence_layers as functional
from metadensity.nn.residual import MultiplicativeBlock
from metadensity.training import MetaTrainer, TrainingConfig
from tests.metadensity.native.test_gated_layer import ROUGHLY, TOLERANCE, compare
from tests.metadensity.toys import Patterns

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler here"
)
PRECISIONS = {"float32": nullcontext, "bfloat16": functools.partial(torch.autocast, "cpu", torch.bfloat16)}


@dataclass(frozen=True)
class Case:
    """Layers over sequences; with ``first`` the first of them has other inputs and leaves out the current place."""

    layers: int = 2
    planes: int = 8
    skip: int = 5
    kernel_size: int = 3
    first: bool = False
    dilations: tuple[int, ...] = (1, 2, 4)
    context: int = 0
    attended: int = 0
    batch: int = 2
    tasks: int = 1
    places: int = 20
    skip_sum: bool = False
    outputs: tuple[int, ...] = (0, 1)  # those a loss depends on: what the last layer gives, the skips

    def net(self) -> list[GatedLayer]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return [
                GatedLayer(
                    3 if first else self.planes,
                    self.planes,
                    self.skip,
                    1,
                    self.kernel_size + 2 * first,
                    first,
                    self.context,
                    self.attended,
                    1 if first else self.dilations[i % len(self.dilations)],
                )
                for i, first in enumerate([self.first] + [False] * (self.layers - 1))
            ]

    def inputs(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        shapes: dict[str, tuple[int, ...]] = {"x": (self.batch, 3 if self.first else self.planes, self.places)}
        if self.attended:
            shapes["attended"] = (self.batch, self.attended, self.places)
        if self.skip_sum:
            shapes["skip_sum"] = (self.batch, self.skip, self.places)
        if self.context:
            shapes["vector"] = (self.tasks, self.context)
        found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        return {name: tensor.to(dtype).requires_grad_() for name, tensor in found.items()}

    def run(self, net: list[GatedLayer], given: dict[str, Tensor]) -> list[Tensor]:
        """What the last layer gives, and the skips."""
        biases = [layer.biases(given["vector"]) if "vector" in given else [] for layer in net]
        (new,), skips = gated_layers(net, [given["x"]], biases, given.get("attended"), given.get("skip_sum"))
        return [new, skips]

    def loss(self, found: list[Tensor]) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        factors = [torch.randn(output.shape, generator=generator) for output in found]
        return torch.stack([(found[i] * factors[i]).sum() for i in self.outputs]).sum()


def sources(net: list[GatedLayer], given: dict[str, Tensor]) -> list[Tensor]:
    return [*given.values(), *(parameter for layer in net for parameter in layer.parameters())]


CASES = {
    "plain": Case(),
    "wavenet": Case(
        layers=5, planes=32, skip=64, first=True, dilations=(1, 2, 64, 512), context=4, batch=4, tasks=2, places=300
    ),
    "wide": Case(planes=64, skip=32, places=129, skip_sum=True),
    "one layer": Case(layers=1, context=3, batch=3),
    "first alone": Case(layers=1, first=True, attended=4, skip_sum=True),
    "reads": Case(layers=3, first=True, attended=7, context=2, batch=6, tasks=3, skip_sum=True),
    "odd planes": Case(planes=13, skip=20, attended=5),
    "one plane": Case(layers=1, planes=1, skip=1),
    "long kernels": Case(kernel_size=9, dilations=(3,), places=31),
    "taps beyond the first place": Case(layers=3, kernel_size=5, dilations=(7, 40, 1), places=11),
    "one place": Case(layers=3, first=True, places=1, context=3),
    "only the skips": Case(layers=3, outputs=(1,), context=3),
    "only the last": Case(layers=3, outputs=(0,), attended=3),
}


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernel was called for."""
    calls: list[str] = []
    run = sequence_layers.Call._run

    def noted(self: Any, name: str) -> None:
        calls.append(name.removeprefix("layers_"))
        run(self, name)

    monkeypatch.setattr(sequence_layers.Call, "_run", noted)
    return calls


@pytest.fixture(params=PRECISIONS)
def within(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[Any]]:
    """Each precision that the kernel has here."""
    if request.param == "bfloat16" and not sequence_layers.has_amx():
        pytest.skip("this processor has no tiles of bfloat16 numbers")
    return PRECISIONS[request.param]


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_torch(
    name: str, threads: int, within: Callable[[], Any], used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against torch in float64: outputs, and the gradients of all inputs and parameters."""
    case = CASES[name]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(sequence_layers, "_PLACES_A_THREAD", 1)
    results = []
    for dtype, context in ((torch.float32, within), (torch.float64, nullcontext)):
        net, given = [layer.to(dtype) for layer in case.net()], case.inputs(dtype)
        with context():
            found = case.run(net, given)
        results.append([*found, *torch.autograd.grad(case.loss(found), sources(net, given), allow_unused=True)])
    assert used == ["forward", "backward"]
    compare(*results, TOLERANCE if within is nullcontext else ROUGHLY)


@needs_compiler
@pytest.mark.parametrize("name", ["wavenet", "wide"])
def test_bfloat16_is_no_rougher_than_torchs(name: str, used: list[str]) -> None:
    """On average over the numbers of a tensor, if they are many: torch rounds what lies between layers as well."""
    if not sequence_layers.has_amx():
        pytest.skip("this processor has no tiles of bfloat16 numbers")
    case, results = CASES[name], []
    for precision, alone in (("bfloat16", nullcontext), ("bfloat16", disabled), ("float32", disabled)):
        net, given = case.net(), case.inputs()
        with PRECISIONS[precision](), alone():
            found = [output.float() for output in case.run(net, given)]
        results.append([*found, *torch.autograd.grad(case.loss(found), sources(net, given))])
    assert used == ["forward", "backward"]
    for ours, theirs, exact in zip(*results, strict=True):
        assert exact.numel() < 100 or (ours - exact).abs().mean() <= (theirs - exact).abs().mean()


@needs_compiler
@pytest.mark.parametrize("name", ["wavenet", "reads", "one layer"])
def test_the_same_bits_each_time(name: str, within: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """For a number of threads; without gradients too. The values are those of any number of threads."""
    case, net, given = CASES[name], CASES[name].net(), CASES[name].inputs()
    monkeypatch.setattr(sequence_layers, "_PLACES_A_THREAD", 1)
    values = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with within():
            first, second = (case.run(net, given) for _ in range(2))
            with torch.no_grad():
                before = {key: tensor.clone() for key, tensor in given.items()}
                without = case.run(net, given)
        gradients = [torch.autograd.grad(case.loss(found), sources(net, given)) for found in (first, second)]
        assert all(map(torch.equal, first, second))
        assert all(map(torch.equal, first, without))
        assert all(map(torch.equal, *gradients))
        assert all(torch.equal(before[key], given[key]) for key in given), "it writes to what it is given"
        values.append(first)
    assert all(map(torch.equal, *values))


@needs_compiler
def test_sequences_do_not_see_one_another(within: Callable[[], Any]) -> None:
    case = Case(batch=5, layers=3)
    net, given = case.net(), case.inputs()
    with torch.no_grad(), within():
        together = case.run(net, given)
        alone = case.run(net, {name: tensor[3:4] for name, tensor in given.items()})
    assert all(torch.equal(many[3:4], one) for many, one in zip(together, alone, strict=True))


@needs_compiler
@pytest.mark.parametrize("place", [4, 150])
def test_causal_to_the_last_bit(place: int, within: Callable[[], Any]) -> None:
    """Across the blocks of places that the kernel takes together, too."""
    case = Case(layers=3, first=True, batch=1, places=200)
    net, given = case.net(), case.inputs()
    with within():
        found = [output[0, :, place] for output in case.run(net, given)]
    for seen in found:
        (slope,) = torch.autograd.grad(seen.sum(), given["x"], retain_graph=True)
        assert not slope[0, :, place:].any()
        assert slope[0, :, place - 1].any()
    with torch.no_grad(), within():
        later = {"x": given["x"].clone()}
        later["x"][:, :, place:] = 7
        for ours, theirs in zip(found, case.run(net, later), strict=True):
            assert torch.equal(ours, theirs[0, :, place])


@needs_compiler
@pytest.mark.parametrize("name", ["plain", "reads", "only the skips"])
def test_the_gradient_has_a_gradient(name: str, within: Callable[[], Any]) -> None:
    """By torch's operations in float32; the same as through torch alone, but that autocast rounds ``contexts``."""
    case, results = CASES[name], []
    for context in (within, disabled):
        net, given = case.net(), case.inputs()
        with context():
            loss = case.loss(case.run(net, given))
        gradients = torch.autograd.grad(loss, sources(net, given), create_graph=True, allow_unused=True)
        squares = torch.stack([slope.square().sum() for slope in gradients if slope is not None]).sum()
        results.append([*gradients, *torch.autograd.grad(squares, sources(net, given), allow_unused=True)])
    ours, theirs = results
    expected = [None if tensor is None else tensor.double() for tensor in theirs]
    compare(ours, expected, TOLERANCE if within is nullcontext else ROUGHLY)


@needs_compiler
def test_gradients_only_of_what_asks_for_them(used: list[str]) -> None:
    case, results = CASES["reads"], []
    for within in (nullcontext, disabled):
        net, given = case.net(), case.inputs()
        asking = [given["vector"], net[1].out.weight]
        for tensor in sources(net, given):
            tensor.requires_grad_(any(tensor is other for other in asking))
        with within():
            results.append(torch.autograd.grad(case.loss(case.run(net, given)), asking))
    assert used == ["forward", "backward"]
    compare(results[0], [tensor.double() for tensor in results[1]])


@dataclass(frozen=True)
class Units:
    """The multiplicative units of a block, without what comes before and after them."""

    planes: int = 8
    taps: int = 3
    dilation: int = 2
    context: int = 3
    attended: int = 0
    batch: int = 4
    tasks: int = 2
    places: int = 20

    def run(self, dtype: torch.dtype, within: Callable[[], Any], higher: bool = False) -> list[Tensor]:
        """Output and gradients of all inputs and parameters, or the gradients of the sum of squares of these."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            block = MultiplicativeBlock(
                self.planes, self.taps, self.dilation, context=self.context, attended=self.attended
            ).to(dtype)
        generator = torch.Generator().manual_seed(1)
        shapes = [(self.batch, self.places, self.planes), (self.batch, self.places, self.attended)]
        x, attended, factor = (torch.randn(shape, generator=generator) for shape in (*shapes, shapes[0]))
        vector = torch.randn(self.tasks, self.context, generator=generator)
        given = [tensor.to(dtype).requires_grad_() for tensor in (x, attended, vector)]
        with within():
            biases = block.biases(given[2]) if self.context else []
            found = block.convolved(given[0], biases, given[1] if self.attended else None)
        parts = (block.convs, block.contexts, block.read)
        asked = [*given, *(parameter for part in parts if part is not None for parameter in part.parameters())]
        loss = (found * factor).sum()
        gradients = torch.autograd.grad(loss, asked, create_graph=higher, allow_unused=True)
        if not higher:
            return [found, *gradients]
        squares = torch.stack([slope.square().sum() for slope in gradients if slope is not None]).sum()
        return list(torch.autograd.grad(squares, asked, allow_unused=True))


UNITS = {
    "plain": Units(),
    "bytenet": Units(planes=64, dilation=16, context=16, attended=64, places=150),
    "no context": Units(context=0, tasks=1, attended=5),
    "odd planes": Units(planes=13, taps=2, attended=7),
    "many planes": Units(planes=40),
    "taps beyond the first place": Units(dilation=16, places=9),
    "one place": Units(places=1, attended=3),
}


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", UNITS)
def test_units_equal_to_torch(
    name: str, threads: int, within: Callable[[], Any], used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against torch in float64: outputs, and the gradients of all inputs and parameters, and of the condition."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(sequence_layers, "_PLACES_A_THREAD", 1)
    ours, exact = UNITS[name].run(torch.float32, within), UNITS[name].run(torch.float64, nullcontext)
    assert used == ["forward", "backward"]
    compare(ours, exact, TOLERANCE if within is nullcontext else ROUGHLY)
    assert all(map(torch.equal, ours[:1], UNITS[name].run(torch.float32, within)[:1]))


@needs_compiler
def test_units_in_bfloat16_are_no_rougher_than_torchs(used: list[str]) -> None:
    if not sequence_layers.has_amx():
        pytest.skip("this processor has no tiles of bfloat16 numbers")
    ours, theirs, exact = (
        UNITS["bytenet"].run(torch.float32, functools.partial(stack, precision, alone))
        for precision, alone in (("bfloat16", nullcontext), ("bfloat16", disabled), ("float32", disabled))
    )
    assert used == ["forward", "backward"]
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        assert (mine - true).abs().mean() <= 1.05 * (other - true).abs().mean()


@contextmanager
def stack(precision: str, alone: Callable[[], Any]) -> Iterator[None]:
    with PRECISIONS[precision](), alone():
        yield


@needs_compiler
def test_the_gradient_of_units_has_a_gradient() -> None:
    ours, theirs = (Units(attended=3).run(torch.float32, within, higher=True) for within in (nullcontext, disabled))
    compare(ours, [None if tensor is None else tensor.double() for tensor in theirs])


def under_vmap(case: Case, net: list[GatedLayer], given: dict[str, Tensor]) -> None:
    torch.func.vmap(lambda x: gated_layers(net, [x], [[], []])[1])(given["x"].detach().unsqueeze(0))


def under_grad(case: Case, net: list[GatedLayer], given: dict[str, Tensor]) -> None:
    torch.func.grad(lambda x: gated_layers(net, [x], [[], []])[1].sum())(given["x"].detach())


def without_tiles(case: Case, net: list[GatedLayer], given: dict[str, Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16), patch.object(functional, "has_amx", lambda: False):
        assert case.run(net, given)[1].dtype == torch.bfloat16


def in_double(case: Case, net: list[GatedLayer], given: dict[str, Tensor]) -> None:
    case.run([layer.double() for layer in net], {name: tensor.double() for name, tensor in given.items()})


def with_a_bias_at_each_place(case: Case, net: list[GatedLayer], given: dict[str, Tensor]) -> None:
    bias = torch.randn(1, 2 * case.planes, case.places)
    _, skips = gated_layers(net, [given["x"]], [[bias], [bias]])
    _, other = gated_layers(net, [given["x"]], [[bias[..., :1]], [bias]])
    assert not torch.equal(skips, other)


def with_a_hook(case: Case, net: list[GatedLayer], given: dict[str, Tensor]) -> None:
    before = case.run(net, given)[1]
    net[1].out.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert not torch.equal(case.run(net, given)[1], before)


def with_no_sequences(case: Case, net: list[GatedLayer], given: dict[str, Tensor]) -> None:
    case.run(net, {name: tensor[:0] for name, tensor in given.items()})


@pytest.mark.parametrize(
    "otherwise",
    [under_vmap, under_grad, without_tiles, in_double, with_a_bias_at_each_place, with_no_sequences],
)
def test_otherwise_torch_computes(otherwise: Callable[..., None], used: list[str]) -> None:
    case = Case()
    otherwise(case, case.net(), case.inputs())
    assert not used


@needs_compiler
def test_hooks_are_called(used: list[str]) -> None:
    case = Case()
    with_a_hook(case, case.net(), case.inputs())
    assert used == ["forward"]  # before there was one


@pytest.mark.parametrize("setting", [("METADENSITY_NATIVE", "0"), ("CXX", "no-such-compiler")])
def test_without_the_kernel_torch_computes(
    setting: tuple[str, str], used: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = Case(context=3)
    with disabled():
        expected = case.run(case.net(), case.inputs())
    sequence_layers.KERNEL.forget()
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv(*setting)
        found = case.run(case.net(), case.inputs())
    finally:
        sequence_layers.KERNEL.forget()
    assert all(map(torch.equal, found, expected))
    assert not used


@needs_compiler
@pytest.mark.parametrize("attention", [None, "dot"])
def test_training_takes_the_same_course(attention: str | None, used: list[str]) -> None:
    """Ten steps of a small WaveNet: with the kernel and without."""
    curves, source = [], Patterns((1, 36))
    for within in (nullcontext, disabled):
        torch.manual_seed(0)
        model = WaveNet((1, 36), 2, layers=5, planes=6, penultimate=8, attention=attention)
        config = TrainingConfig(steps=10, tasks=2, queries=2, shots=(1,), warmup=0, learning_rate=1e-2)
        trainer = MetaTrainer(model, source, None, config)  # type: ignore[arg-type]
        with within():
            curves.append([trainer.update()[0] for _ in range(10)])
    assert used == ["forward", *["forward"] * (attention is not None), "backward", *["backward"] * bool(attention)] * 10
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert len(set(curves[0])) == 10, "nothing is learned"
