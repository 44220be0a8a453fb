"""LSTM cells over a map in the native kernel against torch: values, all gradients, and when it stays away."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from metadensity.native import disabled, lstm_scan
from metadensity.nn.recurrent import DiagonalLayer, RecurrentLayer, RowLayer
from tests.metadensity.native.test_gated_layer import compare

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler here"
)


@dataclass(frozen=True)
class Case:
    """A layer of PixelRNN. kernel_size: of a row layer; 0: a diagonal one."""

    kernel_size: int = 0
    space: tuple[int, int] = (4, 5)
    planes: int = 8
    skip: int = 5
    context: int = 0
    attended: int = 0
    batch: int = 4
    tasks: int = 2

    def layer(self) -> RecurrentLayer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            kernel = (self.kernel_size,) if self.kernel_size else ()
            kind: Any = RowLayer if self.kernel_size else DiagonalLayer
            layer: RecurrentLayer = kind(self.space, *kernel, self.planes, self.skip, self.context, self.attended)
            for border in (layer.hidden, layer.memory):
                torch.nn.init.normal_(border)
        return layer

    def inputs(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        places = self.space[0] * self.space[1]
        shapes: dict[str, tuple[int, ...]] = {"x": (places, self.batch, 2 * self.planes)}
        if self.attended:
            shapes["attended"] = (places, self.batch, self.attended)
        if self.context:
            shapes["vector"] = (self.tasks, self.context)
        found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        return {name: tensor.to(dtype).requires_grad_() for name, tensor in found.items()}

    def run(self, layer: RecurrentLayer, given: dict[str, Tensor]) -> list[Tensor]:
        """What the layer gives, and the skips."""
        biases = layer.biases(given["vector"]) if "vector" in given else []
        return list(layer(given["x"], biases, given.get("attended")))

    def loss(self, found: list[Tensor]) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        factors = [torch.randn(output.shape, generator=generator) for output in found]
        return torch.stack([(output * factor).sum() for output, factor in zip(found, factors, strict=True)]).sum()


CASES = {
    "diagonal": Case(),
    "row": Case(kernel_size=3),
    "paper": Case(space=(7, 9), planes=24, context=6, attended=24),
    "wide rows": Case(kernel_size=5, space=(3, 9), planes=17, context=3, attended=4),
    "high": Case(space=(6, 2), planes=33, batch=3, tasks=1),
    "one row": Case(space=(1, 6)),
    "one row of rows": Case(kernel_size=3, space=(1, 6), context=2),
    "one column": Case(space=(5, 1), planes=16),
    "one place": Case(space=(1, 1), planes=1, batch=1, tasks=1),
    "taps beyond the border": Case(kernel_size=7, space=(3, 2), planes=4),
}


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernel was called for."""
    calls: list[str] = []
    run = lstm_scan.Call._run

    def noted(self: Any, name: str) -> None:
        calls.append(name)
        run(self, name)

    monkeypatch.setattr(lstm_scan.Call, "_run", noted)
    return calls


@needs_compiler
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_torch(name: str, threads: int, used: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against torch in float64: outputs, and the gradients of all inputs and parameters."""
    case, results = CASES[name], []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(lstm_scan, "_CELLS_A_THREAD", 1)
    for dtype in (torch.float32, torch.float64):
        layer, given = case.layer().to(dtype), case.inputs(dtype)
        found = case.run(layer, given)
        sources = [*given.values(), *layer.parameters()]
        results.append([*found, *torch.autograd.grad(case.loss(found), sources, allow_unused=True)])
    assert used == ["forward", "backward"]
    compare(*results)


@needs_compiler
@pytest.mark.parametrize("name", ["diagonal", "row"])
def test_the_same_bits_each_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a number of threads; without gradients too. The values are those of any number of threads."""
    case, values = CASES[name], []
    layer, given = case.layer(), case.inputs()
    monkeypatch.setattr(lstm_scan, "_CELLS_A_THREAD", 1)
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        first, second = (case.run(layer, given) for _ in range(2))
        with torch.no_grad():
            assert all(map(torch.equal, first, case.run(layer, given)))
        gradients = [torch.autograd.grad(case.loss(found), [*layer.parameters()]) for found in (first, second)]
        assert all(map(torch.equal, *gradients))
        values.append(first)
    assert all(map(torch.equal, *values))


@needs_compiler
def test_a_gradient_is_that_of_the_threads_that_made_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    case, found = CASES["paper"], []
    monkeypatch.setattr(lstm_scan, "_CELLS_A_THREAD", 1)
    for threads in (2, 1):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        layer, given = case.layer(), case.inputs()
        loss = case.loss(case.run(layer, given))
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(torch.autograd.grad(loss, [*layer.parameters()]))
    assert all(map(torch.equal, *found))


@needs_compiler
@pytest.mark.parametrize("name", ["diagonal", "wide rows"])
def test_the_gradient_has_a_gradient(name: str) -> None:
    case, results = CASES[name], []
    for context in (nullcontext, disabled):
        layer, given = case.layer(), case.inputs()
        sources = [*given.values(), *layer.parameters()]
        with context():
            loss = case.loss(case.run(layer, given))
        gradients = torch.autograd.grad(loss, sources, create_graph=True)
        squares = torch.stack([slope.square().sum() for slope in gradients]).sum()
        results.append([*gradients, *torch.autograd.grad(squares, sources, allow_unused=True)])
    compare(results[0], [None if tensor is None else tensor.double() for tensor in results[1]])


@needs_compiler
def test_otherwise_torch_computes(used: list[str]) -> None:
    """Under autocast the kernel goes on in float32; a hook on a part, torch.func and other precisions keep it away."""
    case = CASES["paper"]
    layer, given = case.layer(), case.inputs()
    expected = case.run(layer, given)
    assert used == ["forward"]
    with torch.autocast("cpu", torch.bfloat16):
        rough = case.run(layer, given)
    assert used == ["forward"] * 2
    compare(rough, [tensor.detach().double() for tensor in expected], 2e-2)
    exact = [tensor.detach().double() for tensor in expected]
    hook = layer.inputs[0].register_forward_hook(lambda *_: None)
    compare(case.run(layer, given), exact)
    hook.remove()
    mapped = torch.vmap(lambda x: layer(x, layer.biases(given["vector"]), given["attended"])[0])(given["x"][None])
    compare([mapped[0]], exact[:1])
    assert used == ["forward"] * 2
