"""Gated layers in the native kernel against torch: values, all gradients, when it stays away, and its memory."""

from __future__ import annotations

import functools
import gc
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from metadensity.models import ConditionalPixelCNN
from metadensity.native import buffer_pool, disabled, gated_layer
from metadensity.native.build import build
from metadensity.nn.causal import GatedLayer
from metadensity.nn.functional import gated_layer as functional
from metadensity.nn.functional.gate import gate_plain
from metadensity.training import MetaTrainer, TrainingConfig
from tests.metadensity.toys import Patterns

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler here"
)
TOLERANCE = 1e-5  # of the largest number of a tensor: sums of some hundred products in float32, in another order
# The same of bfloat16 numbers, each off by up to 0.4 %: as they differ in sign, their sums are by about as much.
ROUGHLY = 0.02
PRECISIONS = {"float32": nullcontext, "bfloat16": functools.partial(torch.autocast, "cpu", torch.bfloat16)}


@dataclass(frozen=True)
class Case:
    planes: int = 8
    skip: int = 5
    kernel_size: int = 3
    excludes_current: bool = False
    context: int = 0
    attended: int = 0
    batch: int = 2
    tasks: int = 1
    space: tuple[int, int] = (6, 7)
    bias_at_places: bool = False
    skip_sum: bool = False
    channels_last: bool = True
    outputs: tuple[int, ...] = (0, 1, 2)  # those a loss depends on: both stacks, skip

    def layer(self) -> GatedLayer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            inputs = 3 if self.excludes_current else self.planes
            return GatedLayer(
                inputs, self.planes, self.skip, 2, self.kernel_size, self.excludes_current, self.context, self.attended
            )

    def inputs(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The stacks and what else the layer gets, with gradients."""
        generator = torch.Generator().manual_seed(1)
        shapes: dict[str, tuple[int, ...]] = {
            name: (self.batch, 3 if self.excludes_current else self.planes) for name in "vh"
        }
        if self.attended:
            shapes["attended"] = (self.batch, self.attended)
        if self.skip_sum:
            shapes["skip_sum"] = (self.batch, self.skip)
        shapes = {name: (*shape, *self.space) for name, shape in shapes.items()}
        if self.context:
            shapes["vector"] = (self.tasks, self.context)
        if self.bias_at_places:
            shapes["places"] = (self.tasks, 2 * self.planes, *self.space)
        found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        if self.channels_last:
            found = {
                name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
                for name, tensor in found.items()
            }
        return {name: tensor.to(dtype).requires_grad_() for name, tensor in found.items()}

    def run(self, layer: GatedLayer, given: dict[str, Tensor]) -> list[Tensor]:
        """Both stacks and the skip output."""
        biases = layer.biases(given["vector"]) if "vector" in given else []
        if "places" in given:
            biases = [bias + given["places"] for bias in biases]
        new, skip = layer([given["v"], given["h"]], biases, given.get("attended"), given.get("skip_sum"))
        return [*new, skip]

    def loss(self, found: list[Tensor]) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        factors = [torch.randn(output.shape, generator=generator) for output in found]
        return torch.stack([(found[i] * factors[i]).sum() for i in self.outputs]).sum()


CASES = {
    "plain": Case(),
    "paper": Case(planes=24, skip=32, context=4, attended=24, batch=4, tasks=2, space=(26, 26), skip_sum=True),
    "wide": Case(planes=32, skip=32, space=(9, 28)),
    "wider": Case(planes=48, skip=48, context=3, space=(5, 9)),
    "first": Case(excludes_current=True, context=3, batch=3),
    "first, reads": Case(excludes_current=True, attended=4, skip_sum=True),
    "odd planes": Case(planes=5, skip=3, context=2, attended=7, batch=6, tasks=3),
    "one plane": Case(planes=1, skip=1),
    "odd planes, first": Case(planes=13, skip=20, excludes_current=True),
    "one place": Case(space=(1, 1), context=3),
    "one row": Case(space=(1, 9)),
    "one column": Case(space=(17, 1)),
    "one image": Case(batch=1, space=(10, 11)),
    "bias at places": Case(context=3, batch=4, tasks=2, bias_at_places=True),
    "contiguous": Case(channels_last=False, attended=3, skip_sum=True),
    "only the skip": Case(outputs=(2,), context=3, skip_sum=True),
    "only a stack": Case(outputs=(0,), attended=3),
    "the other stack": Case(outputs=(1,)),
    "many rows": Case(space=(41, 3), planes=9),
}


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernel was called for."""
    calls: list[str] = []
    run = gated_layer._Call.run

    def noted(self: Any, name: str) -> None:
        calls.append(name)
        run(self, name)

    monkeypatch.setattr(gated_layer._Call, "run", noted)
    return calls


@pytest.fixture(params=PRECISIONS)
def within(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[Any]]:
    """Each precision that the kernel has here."""
    if request.param == "bfloat16" and not gated_layer.has_amx():
        pytest.skip("this processor has no tiles of bfloat16 numbers")
    return PRECISIONS[request.param]


def compare(found: Sequence[Tensor | None], expected: Sequence[Tensor | None], tolerance: float = TOLERANCE) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is None or ours is None:
            rest = ours if theirs is None else theirs
            assert rest is None or not rest.count_nonzero()
        else:
            scale = max(float(theirs.detach().abs().max()), 1e-3)
            torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance * scale)


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_torch(
    name: str, threads: int, within: Callable[[], Any], used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against torch in float64: outputs, and the gradients of all inputs and parameters."""
    case = CASES[name]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    results = []
    for dtype, context in ((torch.float32, within), (torch.float64, nullcontext)):
        layer, given = case.layer().to(dtype), case.inputs(dtype)
        with context():
            found = case.run(layer, given)
        sources = [*given.values(), *layer.parameters()]
        results.append([*found, *torch.autograd.grad(case.loss(found), sources, allow_unused=True)])
    assert used == ["forward", "backward"]
    compare(*results, TOLERANCE if within is nullcontext else ROUGHLY)


@needs_compiler
def test_bfloat16_is_no_rougher_than_torchs(used: list[str]) -> None:
    """On average over the numbers of a tensor, if they are many: torch rounds what lies between layers as well."""
    if not gated_layer.has_amx():
        pytest.skip("this processor has no tiles of bfloat16 numbers")
    case, results = CASES["paper"], []
    for precision, alone in (("bfloat16", nullcontext), ("bfloat16", disabled), ("float32", disabled)):
        layer, given = case.layer(), case.inputs()
        with PRECISIONS[precision](), alone():
            found = [output.float() for output in case.run(layer, given)]
        sources = [*given.values(), *layer.parameters()]
        results.append([*found, *torch.autograd.grad(case.loss(found), sources)])
    assert used == ["forward", "backward"]
    for ours, theirs, exact in zip(*results, strict=True):
        assert exact.numel() < 100 or (ours - exact).abs().mean() <= (theirs - exact).abs().mean()


@needs_compiler
@pytest.mark.parametrize("name", ["paper", "odd planes, first", "bias at places"])
def test_the_same_bits_each_time(name: str, within: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """For a number of threads; without gradients too. The values are those of any number of threads."""
    case, layer = CASES[name], CASES[name].layer()
    given = case.inputs()
    sources = [*given.values(), *layer.parameters()]
    values = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with within():
            first, second = ([*case.run(layer, given)] for _ in range(2))
            with torch.no_grad():
                without = case.run(layer, given)
        gradients = [torch.autograd.grad(case.loss(found), sources, allow_unused=True) for found in (first, second)]
        assert all(map(torch.equal, first, second))
        assert all(map(torch.equal, first, without))
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True) if a is not None and b is not None)
        values.append(first)
    assert all(map(torch.equal, *values))


@needs_compiler
def test_images_do_not_see_one_another(within: Callable[[], Any]) -> None:
    case = Case(batch=5)
    layer, given = case.layer(), case.inputs()
    with torch.no_grad(), within():
        together = case.run(layer, given)
        alone = case.run(layer, {name: tensor[3:4] for name, tensor in given.items()})
    assert all(torch.equal(many[3:4], one) for many, one in zip(together, alone, strict=True))


@needs_compiler
def test_causal_to_the_last_bit(within: Callable[[], Any]) -> None:
    """The vertical stack sees its row and that above, the horizontal one also its own row up to its place."""
    case = Case(batch=1, space=(6, 9))
    layer, given = case.layer(), case.inputs()
    with within():
        v, h = (found[0, :, 3, 4] for found in case.run(layer, given)[:2])
    for seen, name, row, column in ((v, "v", 3, 8), (h, "v", 3, 8), (h, "h", 3, 4)):
        (slope,) = torch.autograd.grad(seen.sum(), given[name], retain_graph=True)
        assert not slope[0, :, row + 1 :].any()
        assert not slope[0, :, row, column + 1 :].any()
        assert slope[0, :, row, 4].any()
    with torch.no_grad(), within():
        later = {name: tensor.clone() for name, tensor in given.items()}
        later["v"][:, :, 4:] = 7
        later["h"][:, :, 3, 5:] = 7
        for ours, theirs in zip((v, h), case.run(layer, later), strict=False):
            assert torch.equal(ours, theirs[0, :, 3, 4])


@needs_compiler
@pytest.mark.parametrize("name", ["plain", "first, reads", "odd planes", "bias at places", "only the skip"])
def test_the_gradient_has_a_gradient(name: str, within: Callable[[], Any]) -> None:
    """By torch's operations in float32; the same as through torch alone, but that autocast rounds ``contexts``."""
    case, results = CASES[name], []
    for context in (within, disabled):
        layer, given = case.layer(), case.inputs()
        sources = [*given.values(), *layer.parameters()]
        with context():
            loss = case.loss(case.run(layer, given))
        gradients = torch.autograd.grad(loss, sources, create_graph=True, allow_unused=True)
        squares = torch.stack([slope.square().sum() for slope in gradients if slope is not None]).sum()
        results.append([*gradients, *torch.autograd.grad(squares, sources, allow_unused=True)])
    ours, theirs = results
    expected = [None if tensor is None else tensor.double() for tensor in theirs]
    compare(ours, expected, TOLERANCE if within is nullcontext else ROUGHLY)


@needs_compiler
def test_one_tensor_as_both_stacks() -> None:
    case, results = Case(excludes_current=True), []
    for within in (nullcontext, disabled):
        x = case.inputs()["v"]
        with within():
            found = case.run(case.layer(), {"v": x, "h": x})
        for graph in (False, True):
            results.append(torch.autograd.grad(case.loss(found), x, create_graph=graph, retain_graph=True)[0])
    for gradient in results[1:]:
        torch.testing.assert_close(gradient, results[0], rtol=0, atol=1e-5)


def under_vmap(case: Case, layer: GatedLayer, given: dict[str, Tensor]) -> None:
    torch.func.vmap(lambda v: layer([v, v], [])[1])(given["v"].detach().unsqueeze(0))


def under_grad(case: Case, layer: GatedLayer, given: dict[str, Tensor]) -> None:
    torch.func.grad(lambda v: layer([v, v], [])[1].sum())(given["v"].detach())


def without_tiles(case: Case, layer: GatedLayer, given: dict[str, Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16), patch.object(functional, "has_amx", lambda: False):
        assert case.run(layer, given)[2].dtype == torch.bfloat16


def in_half(case: Case, layer: GatedLayer, given: dict[str, Tensor]) -> None:
    with torch.autocast("cpu", torch.float16):
        case.run(layer, given)


def counted(case: Case, layer: GatedLayer, given: dict[str, Tensor]) -> None:
    with FlopCounterMode(display=False) as counter:
        case.run(layer, given)
    assert counter.get_total_flops() > 0


def with_tangents(case: Case, layer: GatedLayer, given: dict[str, Tensor]) -> None:
    with forward_ad.dual_level(), patch.object(functional, "gate", gate_plain):  # ``gate`` has no forward mode
        v = forward_ad.make_dual(given["v"].detach(), torch.ones_like(given["v"]))
        tangent = forward_ad.unpack_dual(layer([v, given["h"]], [])[1]).tangent
        assert tangent is not None


def in_double(case: Case, layer: GatedLayer, given: dict[str, Tensor]) -> None:
    case.run(layer.double(), {name: tensor.double() for name, tensor in given.items()})


def with_a_wider_kernel(case: Case, layer: GatedLayer, given: dict[str, Tensor]) -> None:
    case.run(Case(kernel_size=5).layer(), given)


def with_a_dilation(case: Case, layer: GatedLayer, given: dict[str, Tensor]) -> None:
    for conv in layer.convs:
        conv.dilations = (2, 2)
    case.run(layer, given)


def with_no_images(case: Case, layer: GatedLayer, given: dict[str, Tensor]) -> None:
    case.run(layer, {name: tensor[:0] for name, tensor in given.items()})


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, of its forward mode
@pytest.mark.parametrize(
    "otherwise",
    [
        under_vmap,
        under_grad,
        without_tiles,
        in_half,
        counted,
        with_tangents,
        in_double,
        with_a_wider_kernel,
        with_a_dilation,
        with_no_images,
    ],
)
def test_otherwise_torch_computes(otherwise: Callable[..., None], used: list[str]) -> None:
    case = Case()
    otherwise(case, case.layer(), case.inputs())
    assert not used


@pytest.mark.parametrize("setting", [("METADENSITY_NATIVE", "0"), ("CXX", "no-such-compiler"), ("CXX", "false")])
def test_without_the_kernel_torch_computes(
    setting: tuple[str, str],
    used: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    case = Case(context=3)
    with disabled():
        expected = case.run(case.layer(), case.inputs())
    gated_layer.KERNEL.forget()
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv(*setting)
        with caplog.at_level("WARNING"):
            found = [case.run(case.layer(), case.inputs()) for _ in range(2)]
    finally:
        gated_layer.KERNEL.forget()
    assert all(torch.equal(ours, theirs) for one in found for ours, theirs in zip(one, expected, strict=True))
    assert caplog.text.count("layers run in torch alone") == (0 if setting[0] == "METADENSITY_NATIVE" else 1)
    assert not used


@needs_compiler
def test_the_sources_are_built_apart_and_anew_with_their_headers(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "one.cpp").write_text('#include "two.h"\nextern "C" int one() { return TWO; }\n')
    (folder / "two.h").write_text("#define TWO 2\n")
    first = build(tmp_path, folder / "one.cpp")
    (folder / "two.h").write_text("#define TWO 3\n")
    second = build(tmp_path, folder / "one.cpp")
    assert first.name.startswith("one-")
    assert first != second
    assert build(tmp_path, folder / "one.cpp") == second


@needs_compiler
def test_training_takes_the_same_course() -> None:
    """Ten steps of a small net: with the kernel and without."""
    curves = []
    for within in (nullcontext, disabled):
        torch.manual_seed(0)
        model = causal_model()
        config = TrainingConfig(steps=10, tasks=2, queries=2, shots=(1,), warmup=0, learning_rate=1e-2)
        source: Any = Patterns((1, 6, 6))
        trainer = MetaTrainer(model, source, None, config)
        with within():
            curves.append([trainer.update()[0] for _ in range(10)])
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert curves[0][-1] < curves[0][0]


def causal_model() -> Any:
    return ConditionalPixelCNN((1, 6, 6), 2, layers=3, planes=6, penultimate=8)


def test_memory_is_used_again_once_it_is_free_and_no_sooner() -> None:
    size = buffer_pool.SMALLEST // 4
    first = buffer_pool.empty_from_pool(size)
    where, view = first.data_ptr(), first[5:]
    assert where % 64 == 0
    del first
    gc.collect()
    second = buffer_pool.empty_from_pool(size)
    assert second.data_ptr() != where, "a view still uses it"
    view.fill_(1)
    second.zero_()
    assert bool((view == 1).all())
    del view
    gc.collect()
    assert buffer_pool.empty_from_pool(size).data_ptr() == where
    assert buffer_pool.empty_from_pool(3).shape == (3,)


def test_memory_that_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = buffer_pool._Pool()
    monkeypatch.setattr(buffer_pool, "_pool", pool)
    monkeypatch.setattr(buffer_pool, "LARGEST", buffer_pool.SMALLEST)
    held = [buffer_pool.empty_from_pool(buffer_pool.SMALLEST // 4) for _ in range(3)]
    assert len({tensor.data_ptr() for tensor in held}) == 3
    del held
    gc.collect()
    assert pool.unused == buffer_pool.SMALLEST
