"""The cached sampler in torch and in the native kernel: equal pixels, nothing computed twice, a fallback."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.drawing import Draws
from metadensity.models import AttentionPixelCNN, ConditionalPixelCNN
from metadensity.native import line_sampler
from metadensity.native.build import build
from metadensity.nn.causal import CausalConv
from metadensity.nn.encoders import SupportPatchEncoder
from metadensity.sampling.cached import CachedSampler, _run, sample_cached
from metadensity.sampling.naive import sample_naive
from metadensity.testing.subjects import randomise

SHAPES = [((1, 20), 2), ((2, 9), 5), ((1, 6, 7), 2), ((3, 3, 5), 256), ((1, 3, 2, 5), 3)]


@pytest.fixture
def fresh() -> Iterator[None]:
    """The kernel is looked for anew, in this test and after it."""
    line_sampler.KERNEL.forget()
    yield
    line_sampler.KERNEL.forget()


def density(shape: tuple[int, ...], levels: int, tasks: int = 1, planes: int = 20, **options: Any) -> Any:
    """An attention network with random weights, given two supports."""
    model = AttentionPixelCNN(shape, levels, layers=4, planes=planes, penultimate=18, **options)
    randomise(model, seed=1)
    support = torch.randint(levels, (2, tasks, *shape), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model(support)


def uniforms(batch: int, shape: tuple[int, ...]) -> Tensor:
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(3))


def has_compiler() -> bool:
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler here")
@pytest.mark.parametrize("attention", ["dot", "additive"])
@pytest.mark.parametrize(("shape", "levels"), SHAPES)
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("options", [{"patch_stride": 4}, {"patch_stride": 1}, {"first_kernel": 5}], ids=str)
def test_all_samplers_draw_the_same_pixels(
    shape: tuple[int, ...], levels: int, batch: int, attention: str, options: dict[str, int]
) -> None:
    given = density(shape, levels, attention=attention, **options)
    chances = uniforms(batch, shape)
    with torch.no_grad():
        assert CachedSampler(given.network, given.condition, batch, compiled=True).kernel is not None
        naive = sample_naive(given.network, given.condition, Draws(chances))
        for compiled in (True, False):
            assert torch.equal(naive, sample_cached(given.network, given.condition, Draws(chances), compiled=compiled))
    assert len(naive.unique()) > 1


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler here")
@pytest.mark.parametrize("kernels", [{"first_kernel": 5}, {"kernel_size": 5}], ids=str)
@pytest.mark.parametrize(("shape", "levels"), SHAPES)
def test_all_samplers_of_a_dilated_network_draw_the_same_pixels(
    shape: tuple[int, ...], levels: int, kernels: dict[str, int]
) -> None:
    given = density(shape, levels, attention="dot", dilations=(2, 1, 4), **kernels)
    chances = uniforms(5, shape)
    with torch.no_grad():
        assert CachedSampler(given.network, given.condition, 5, compiled=True).kernel is not None
        naive = sample_naive(given.network, given.condition, Draws(chances))
        for compiled in (True, False):
            assert torch.equal(naive, sample_cached(given.network, given.condition, Draws(chances), compiled=compiled))
    assert len(naive.unique()) > 1


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler here")
@pytest.mark.parametrize("compiled", [True, False])
def test_what_a_dilated_network_keeps_does_not_grow_with_the_line(compiled: bool) -> None:
    for places in (100, 200):
        given = density((1, places), 2, attention="dot", dilations=(1, 2, 4))
        sampler = CachedSampler(given.network, given.condition, 1, compiled)
        sampler.begin_line(())
        lines = sampler.kernel._kept[1]["lines"] if sampler.kernel is not None else []
        assert sum(line.numel() for line in sampler.lines) == 0
        assert [line.numel() for line in lines] == ([2, 2 * 20, 3 * 20, 5 * 20] if compiled else [])
        assert [ring.maxlen for ring in sampler.rings] == [1, 2, 3, 5]


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler here")
@pytest.mark.parametrize("compiled", [True, False])
def test_nothing_of_one_run_is_left_for_the_next(compiled: bool) -> None:
    """Rings of one clip that the next one saw would be those of another speaker."""
    given = density((1, 30), 5, attention="dot", dilations=(1, 2, 4))
    draws = [Draws(uniforms(64, (1, 30)) * factor) for factor in (1, 0.5)]
    with torch.no_grad():
        sampler = CachedSampler(given.network, given.condition, 64, compiled)
        first, other, again = (_run([sampler], draws[i]) for i in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler here")
def test_threads_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    given = density((1, 6, 7), 2, tasks=3)
    chances = uniforms(21, (1, 6, 7)).view(7, 3, 1, 6, 7)
    alone = given.sample_from_uniforms(chances)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    sampler = CachedSampler(given.network, given.condition, 21, compiled=True)
    assert sampler.kernel is not None
    assert sampler.kernel._ranges == [(0, 7), (7, 14), (14, 21)]
    assert torch.equal(alone, given.sample_from_uniforms(chances))


def test_a_kernel_that_is_wrong_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the equality: one bias off by 1 moves pixels."""
    given = density((1, 6, 7), 2)
    chances = uniforms(16, (1, 6, 7))
    with torch.no_grad():
        sampler = CachedSampler(given.network, given.condition, 16, compiled=True)
        if sampler.kernel is not None:
            sampler.kernel._kept[0]["logits_bias"][0, 0] += 1
        else:
            given.network.head.logits.bias[0] += 1
        drawn = _run([sampler], Draws(chances))
        monkeypatch.undo()
        assert not torch.equal(drawn, sample_naive(*_same((1, 6, 7)), Draws(chances)))


def _same(shape: tuple[int, ...]) -> tuple[Any, Any]:
    again = density(shape, 2)
    return again.network, again.condition


@pytest.mark.parametrize(("shape", "levels"), SHAPES)
def test_with_prototypes_both_samplers_draw_the_same_pixels(shape: tuple[int, ...], levels: int) -> None:
    given = density(shape, levels, tasks=2, prototypes=7)
    chances = uniforms(16, shape)
    with torch.no_grad():
        naive = sample_naive(given.network, given.condition, Draws(chances))
        assert torch.equal(naive, sample_cached(given.network, given.condition, Draws(chances)))
    assert len(naive.unique()) > 1


def test_networks_that_the_kernel_cannot_take_run_in_torch() -> None:
    for options in ({"likelihood": "logistic"}, {"prototypes": 3}):
        given = density((1, 5), 4, **options)
        assert CachedSampler(given.network, given.condition, 2, compiled=True).kernel is None
    plain = density((1, 5), 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert CachedSampler(plain.network, plain.condition, 2, compiled=True).kernel is None
        assert plain.sample((2,)).shape == (2, 1, 1, 5)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("setting", [("METADENSITY_NATIVE", "0"), ("CXX", "false"), ("CXX", "no-such-compiler")])
def test_without_the_kernel_pixels_are_the_same(
    setting: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = density((1, 6, 7), 2)
    chances = uniforms(4, (1, 6, 7)).unsqueeze(1)
    before = given.sample_from_uniforms(chances)
    line_sampler.KERNEL.forget()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(*setting)
    with caplog.at_level("WARNING"):
        assert line_sampler.library() is None
        assert line_sampler.library() is None
    assert caplog.text.count("in torch alone") == (0 if setting[0] == "METADENSITY_NATIVE" else 1)
    assert not list(tmp_path.rglob("*.*")), "a failed build leaves nothing behind"
    assert torch.equal(before, given.sample_from_uniforms(chances))


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler here")
def test_the_kernel_is_built_once(tmp_path: Path) -> None:
    first = build(tmp_path, line_sampler.KERNEL.source)
    built = first.stat().st_mtime_ns
    assert build(tmp_path, line_sampler.KERNEL.source) == first
    assert first.stat().st_mtime_ns == built
    assert list(tmp_path.glob("*.so")) == [first]


def test_nothing_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of a stack is convolved once; the last stack goes by the products of the line, never as a whole."""
    calls: Counter[int] = Counter()
    convolve = CausalConv.convolve

    def counted(self: CausalConv, *given: Any) -> Tensor:
        calls[self.stack] += 1
        return convolve(self, *given)

    monkeypatch.setattr(CausalConv, "convolve", counted)
    given = density((1, 3, 4, 5), 2)
    calls.clear()
    given.sample_from_uniforms(uniforms(2, (1, 3, 4, 5)).unsqueeze(1))
    assert calls == {0: 4 * 3, 1: 4 * 3 * 4}  # four layers; three planes, twelve rows


@pytest.mark.parametrize("kind", [AttentionPixelCNN, ConditionalPixelCNN])
def test_a_support_is_encoded_once(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is then scored and drawn."""
    model = kind((1, 8, 8), 2, layers=2, planes=4, penultimate=4)
    calls: Counter[str] = Counter()
    for module in model.modules():
        if isinstance(module, SupportPatchEncoder) or module is model.encoder:
            module.register_forward_hook(lambda module, *_: calls.update([type(module).__name__]))
    with torch.no_grad():
        given: PixelCNNDensity = model(torch.zeros(3, 1, 1, 8, 8, dtype=torch.uint8))
        for _ in range(10):
            assert given.log_prob(torch.ones(100, 1, 1, 8, 8, dtype=torch.uint8)).shape == (100, 1)
        given.sample((2,))
    assert calls
    assert set(calls.values()) == {1}


def test_wrong_arguments_are_named() -> None:
    given = density((1, 2, 3), 2)
    chances = uniforms(2, (1, 2, 3)).unsqueeze(1)
    with pytest.raises(ValueError, match="must end in"):
        given.sample_from_uniforms(chances[..., :2])
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"temperature=.*positive"):
            given.sample_from_uniforms(chances, temperature=temperature)
    with pytest.raises(ValueError, match="broadcast"):
        given.sample_from_uniforms(chances, known=torch.zeros(3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="from 0 to 2; give levels 0 to 1, and -1"):
        given.sample_from_uniforms(chances, known=torch.tensor([0, 2, 1]))
    with pytest.raises(TypeError, match="known holds"):
        given.sample_from_uniforms(chances, known=torch.zeros(2, 3))
    assert given.sample_from_uniforms(chances[:0]).shape == (0, 1, 1, 2, 3)
