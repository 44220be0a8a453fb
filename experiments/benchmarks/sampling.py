"""Cached sampling against the naive loop over the same network, and over a plain PixelCNN with the same weights.

All sides turn the same uniform numbers into pixels, which are asserted equal. A run of the naive loop is a full pass of
the network for each pixel: at 28x28 all 784 are run, once, with runs of the cached sampler before and after. Of sound
there are too many: its time is that of one pass for each sample, and the codes are compared on a shorter clip.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from experiments.benchmarks.peers import PlainPixelCNN
from experiments.benchmarks.timing import Row, interleaved, row
from metadensity.densities.pixelcnn import PixelCNNDensity, RasterDensity
from metadensity.drawing import Draws
from metadensity.evaluation.cost import parameter_count
from metadensity.models import AttentionPixelCNN, UnconditionalPixelCNN, WaveNet
from metadensity.native import line_sampler
from metadensity.sampling.cached import sample_cached

Sizes: TypeAlias = dict[str, Any]
SIZES: Sizes = {"layers": 9, "planes": 32, "penultimate": 32}
TINY: Sizes = {"layers": 2, "planes": 4, "penultimate": 4}


def rows(quick: bool) -> list[Row]:
    """Cached against naive and plain at batch 1 and 16, with attention, and the time per pixel of two image sizes."""
    side, sizes = (5, TINY) if quick else (28, SIZES)
    found: list[Row] = []
    for batch, bar in ((1, 12), (16, 60)):
        found += against_naive(
            unconditional(side, sizes), batch, None if quick else bar, f"{side}x{side}, {_named(sizes)}, batch {batch}"
        )
    small = 5 if quick else 14
    for kind in ("dot", "additive"):
        density = attending(small, sizes, kind)
        name = f"{small}x{small}, {kind} attention to 4 supports, batch 1"
        found += against_naive(density, 1, None, name, plain=False, torch_alone=False)
    found.append(per_pixel(*((4, 8) if quick else (14, 56)), sizes, 2 if quick else 5))
    return [*found, *sound(quick)]


def unconditional(side: int, sizes: Sizes) -> PixelCNNDensity:
    """The density of a network with random weights on binary images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UnconditionalPixelCNN((1, side, side), 2, **sizes)
        return model.condition(torch.zeros(0, 1, 1, side, side, dtype=torch.uint8))


def attending(side: int, sizes: Sizes, kind: str) -> PixelCNNDensity:
    """The density of an attention network with random weights, given 4 random supports."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AttentionPixelCNN((1, side, side), 2, attention=kind, **sizes)
        return model.condition(torch.randint(2, (4, 1, 1, side, side)))


def against_naive(
    density: PixelCNNDensity, batch: int, bar: int | None, name: str, plain: bool = True, torch_alone: bool = True
) -> list[Row]:
    """The cached sampler, as it comes and in torch alone, against the naive loop and against the plain network's."""
    chances = uniforms(batch, density)
    sides: dict[str, Callable[[], Tensor]] = {"cached": partial(density.sample_from_uniforms, chances)}
    if torch_alone:
        sides["torch"] = partial(_cached, density, chances, compiled=False)
    before = interleaved(sides, 5)
    naive_s, naive = _once(lambda: density.sample_from_uniforms(chances, naive=True))
    for side in sides.values():
        _require_equal(side(), naive, name)
    plain_s = 0.0
    if plain:
        peer = PlainPixelCNN(density.network)
        assert peer.effective_parameters == parameter_count(density.network)
        plain_s, pixels = _once(lambda: peer.sample(chances.flatten(0, 1)))
        _require_equal(pixels.view_as(naive), naive, name)
    after = interleaved(sides, 5)
    seconds = {side: (before[side] + after[side]) / 2 for side in sides}
    kernel = "native kernel" if line_sampler.library() is not None else "torch"
    found = [row(f"sampling: {name}; cached ({kernel}), naive", seconds["cached"], naive_s, bar=bar)]
    if torch_alone:
        found.append(row(f"sampling: {name}; cached (torch alone), naive", seconds["torch"], naive_s, bar=bar))
    if plain:
        found.append(row(f"sampling: {name}; cached ({kernel}), plain PixelCNN", seconds["cached"], plain_s))
    return found


def per_pixel(small: int, large: int, sizes: Sizes, repeats: int) -> Row:
    """Seconds a pixel in a large image (ours) and in a small one (peer): linear cost is a ratio of 1."""
    sides = {}
    for side in (small, large):
        density = unconditional(side, sizes)
        sides[str(side)] = partial(density.sample_from_uniforms, uniforms(1, density))
    seconds = interleaved(sides, repeats)
    a, b = seconds[str(large)] / large**2, seconds[str(small)] / small**2
    return row(f"sampling: time a pixel, batch 1, {large}x{large} (ours), {small}x{small} (peer)", a, b, bar=1 / 1.3)


def sound(quick: bool) -> list[Row]:
    """A WaveNet's cached sampler against the naive loop, and its time a sample of a long clip and of a short one."""
    short, places, long = (20, 40, 80) if quick else (1000, 4000, 8000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = WaveNet((1, places), 256, **({**TINY, "layers": 4} if quick else {}))

    def given(count: int) -> tuple[PixelCNNDensity, Tensor]:
        density = net.resized(count).condition(torch.zeros(0, 1, 1, count, dtype=torch.uint8))
        assert isinstance(density, PixelCNNDensity)
        return density, uniforms(1, density)

    compared, chances = given(min(400, places))
    naive = compared.sample_from_uniforms(chances, naive=True)
    for compiled in (True, False):
        _require_equal(_cached(compared, chances, compiled), naive, "sound")
    kernel = "native kernel" if line_sampler.library() is not None else "torch"
    density, chances = given(places)
    sides = {
        kernel: partial(_cached, density, chances, compiled=True),
        "torch alone": partial(_cached, density, chances, compiled=False),
        "naive": partial(density.logits, torch.zeros(1, *density.event_shape, dtype=torch.long)),
    }
    with torch.inference_mode():
        seconds = interleaved(sides, 2 if quick else 5)
    named, naive_s = f"sampling: sound, {places} samples", seconds["naive"] * places
    found = [
        row(f"{named}; cached ({side}), naive by its passes", seconds[side], naive_s, bar=None if quick else bar)
        for side, bar in ((kernel, 200), ("torch alone", 8))
    ]
    sides = {str(count): partial(_cached, *given(count), compiled=True) for count in (short, long)}
    seconds = interleaved(sides, 2 if quick else 5)
    a, b = seconds[str(long)] / long, seconds[str(short)] / short
    return [*found, row(f"sampling: time a sample of sound, {long} (ours), {short} (peer)", a, b, bar=1 / 1.2)]


def curve(quick: bool) -> list[dict[str, float | str]]:
    """Seconds an image against its pixels, batch 1, for each sampler; the naive one on the smaller images alone."""
    sizes = TINY if quick else SIZES
    found: list[dict[str, float | str]] = []
    for side in (3, 4, 6) if quick else (8, 12, 16, 20, 28, 40, 56):
        density = unconditional(side, sizes)
        chances = uniforms(1, density)
        sides = {
            "cached, native kernel": partial(density.sample_from_uniforms, chances),
            "cached, torch alone": partial(_cached, density, chances, compiled=False),
        }
        if line_sampler.library() is None:
            del sides["cached, native kernel"]
        seconds = interleaved(sides, 3)
        if side <= 20:
            seconds["naive"], _ = _once(partial(density.sample_from_uniforms, chances, naive=True))
        found += [{"sampler": name, "pixels": side**2, "seconds": value} for name, value in seconds.items()]
    return found


def uniforms(batch: int, density: RasterDensity) -> Tensor:
    """``(batch, 1, *event_shape)`` numbers in [0, 1), the same each time."""
    return torch.rand(batch, 1, *density.event_shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _cached(density: PixelCNNDensity, chances: Tensor, compiled: bool) -> Tensor:
    drawn = sample_cached(density.network, density.condition, Draws(chances.flatten(0, 1)), compiled=compiled)
    return drawn.view(chances.shape)


def _once(side: Callable[[], Tensor]) -> tuple[float, Tensor]:
    began = time.perf_counter()
    result = side()
    return time.perf_counter() - began, result


def _require_equal(drawn: Tensor, naive: Tensor, name: str) -> None:
    differ = int((drawn != naive).sum())
    assert not differ, f"{name}: {differ} of {naive.numel()} pixels differ from the naive sampler's"


def _named(sizes: Sizes) -> str:
    return f"{sizes['layers']} layers x {sizes['planes']}"
