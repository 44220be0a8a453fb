"""The multiscale density: exact over its own order of pixels, few passes to draw, conditions that matter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import metadensity
from metadensity.densities.multiscale import MultiscaleDensity
from metadensity.drawing import invert_cdf
from metadensity.models.multiscale import MultiscalePixelCNN
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.upscaler import Upscaler, block_offsets, strided_index
from metadensity.testing.checks_density import all_images, is_causal, sums_to_one
from metadensity.testing.subjects import Subject, random_images, randomise

SMALL: dict[str, Any] = {"base": 2, "layers": 2, "upscaler_layers": 2, "planes": 6, "penultimate": 8, "components": 3}
SHAPES = [
    ((1, 4, 4), 2),
    ((1, 6, 4), 2),
    ((3, 4, 4), 4),
    ((1, 5, 7), 3),
    ((2, 9), 2),
    ((1, 4, 3, 4), 2),
    ((1, 8, 8), 2),
]
each_shape = pytest.mark.parametrize(("event_shape", "levels"), SHAPES, ids=str)
each_likelihood = pytest.mark.parametrize("likelihood", ["categorical", "logistic"])


def made(event_shape: tuple[int, ...], levels: int = 2, **options: Any) -> MultiscalePixelCNN:
    model = MultiscalePixelCNN(event_shape, levels, **{**SMALL, **options})
    randomise(model, 0)
    return model.double()


def density_of(model: MultiscalePixelCNN, shots: int = 2, tasks: int = 1) -> MultiscaleDensity:
    support = random_images(shots, tasks, *model.event_shape, levels=model.levels, seed=1)
    density = model(support)
    assert isinstance(density, MultiscaleDensity)
    return density


@each_likelihood
def test_all_binary_images_of_4x4_sum_to_one(likelihood: str) -> None:
    density = density_of(made((1, 4, 4), likelihood=likelihood))
    images = all_images((1, 4, 4), 2).unsqueeze(1)
    with torch.no_grad():
        total = torch.cat([density.log_prob(part) for part in images.split(4096)]).logsumexp(0)
    assert total.abs().max() < 1e-9


@pytest.mark.parametrize(
    ("check", "message"), [(sums_to_one, "sum over all images"), (is_causal, "later pixels move the term")]
)
def test_an_upscaler_that_sees_its_own_group_is_caught(
    check: Callable[[Subject], None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the contract suite, for models whose order is not the raster's."""
    subject = Subject(made((1, 3, 3)))
    check(subject)
    known = Upscaler._known
    monkeypatch.setattr(Upscaler, "_known", lambda self, pixels, group: known(self, pixels, group + 1))
    with pytest.raises(AssertionError, match=message):
        check(subject)


def test_the_order_of_4x4() -> None:
    """Base pixel by pixel, then right of it, below it, and across from it: four steps and three."""
    density = density_of(made((1, 4, 4)))
    expected = [[0, 4, 1, 4], [5, 6, 5, 6], [2, 4, 3, 4], [5, 6, 5, 6]]
    assert density.generation_order.tolist() == expected


@each_shape
def test_every_place_is_generated_once_after_its_half(event_shape: tuple[int, ...], levels: int) -> None:
    density = density_of(made(event_shape, levels))
    steps = density.generation_order
    base = steps[strided_index([0] * steps.ndim, 2 ** len(density.upscalers))]
    assert base.flatten().tolist() == list(range(base.numel()))
    assert set(steps.unique().tolist()) == set(range(int(steps.max()) + 1))
    for scale in range(len(density.upscalers)):
        image = steps[strided_index([0] * steps.ndim, 2**scale)]
        half = image[strided_index([0] * steps.ndim)]
        rest = torch.ones_like(image, dtype=torch.bool)
        rest[strided_index([0] * steps.ndim)] = False
        assert half.max() < image[rest].min()


@each_likelihood
@each_shape
def test_terms_depend_on_earlier_steps_alone(event_shape: tuple[int, ...], levels: int, likelihood: str) -> None:
    """Changing a place leaves the terms of its step and earlier ones at other places as they were."""
    density = density_of(made(event_shape, levels, likelihood=likelihood))
    steps = density.generation_order
    image = random_images(1, *event_shape, levels=levels, seed=2)
    before = density.conditional_log_probs(image)
    moved = 0
    for place in itertools.product(*map(range, event_shape[1:])):
        for channel in range(event_shape[0]):
            other = image.clone()
            index: Any = (0, channel, *place)
            other[index] = (other[index] + 1) % levels
            change = (density.conditional_log_probs(other) - before)[0].abs()
            later = (steps > steps[place]).expand(event_shape)
            here = torch.zeros(event_shape, dtype=torch.bool)
            here[(slice(channel, None), *place)] = True
            assert (change[~(later | here)] <= 1e-10).all()
            moved += int((change[later] > 1e-10).sum())
    assert moved > 0


@each_likelihood
@each_shape
def test_draws_are_those_of_the_slow_sampler(event_shape: tuple[int, ...], levels: int, likelihood: str) -> None:
    """A pixel at a time in the order of the steps, from the density's own terms: the same uniforms, the same pixels."""
    density = density_of(made(event_shape, levels, likelihood=likelihood), tasks=2)
    uniforms = torch.rand(3, 2, *event_shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    fast = density.sample_from_uniforms(uniforms)
    assert torch.equal(fast, slow(density, uniforms))
    assert len(fast.unique()) == levels


@torch.no_grad()
def slow(density: MultiscaleDensity, uniforms: Tensor) -> Tensor:
    pixels = torch.zeros(uniforms.shape, dtype=torch.long)
    places = itertools.product(*map(range, density.event_shape[1:]))
    for place in sorted(places, key=lambda place: int(density.generation_order[place])):
        for channel in range(density.event_shape[0]):
            index: Any = (..., channel, *place)
            table: list[Tensor] = []
            for level in range(density.levels):
                pixels[index] = level
                table.append(density.conditional_log_probs(pixels)[index])
            pixels[index] = invert_cdf(torch.stack(table, -1), uniforms[index])
    return pixels


@pytest.mark.parametrize(("side", "scales"), [(8, 0), (16, 1), (32, 2), (64, 3), (128, 4)])
def test_passes_grow_with_the_logarithm(side: int, scales: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three passes a doubling beside the base of 8x8."""
    model = MultiscalePixelCNN((1, side, side), 2, layers=2, upscaler_layers=1, planes=2, penultimate=2)
    calls: list[int] = []
    features = Upscaler.features

    def counted(self: Upscaler, pixels: Tensor, group: int, condition: Conditioning) -> Tensor:
        calls.append(group)
        return features(self, pixels, group, condition)

    monkeypatch.setattr(Upscaler, "features", counted)
    model(torch.zeros(1, 1, 1, side, side, dtype=torch.uint8)).sample()
    assert calls == [1, 2, 3] * scales
    assert model.base.event_shape == (1, 8, 8)


def test_unknown_pixels_are_not_read() -> None:
    """A group's features do not move with pixels of its own and later groups; with earlier ones they do."""
    model = made((1, 4, 4))
    network, condition = density_of(model).upscalers[0]
    image = random_images(1, 1, 4, 4, levels=2, seed=5)
    for group in network.groups:
        reference = network.features(image, group, condition)
        for number, offset in enumerate(block_offsets(2)):
            other = image.clone()
            other[strided_index(offset)] = 1 - other[strided_index(offset)]
            moved = (network.features(other, group, condition) - reference).abs().max()
            assert (moved > 1e-6) if number < group else (moved == 0)


def test_the_border_of_odd_sizes_is_no_pixel() -> None:
    """A cut-off block is told from one that holds black or grey: the padding is marked as not known."""
    network = made((1, 5, 5)).upscalers[-1]
    assert isinstance(network, Upscaler)
    known = network._known(torch.ones(1, 1, 5, 5, dtype=torch.long), 3)
    flags = known[0, 1::2][: len(network.offsets)]
    assert flags[0].all()
    assert flags[1].tolist() == [[1, 1, 0]] * 3
    assert not flags[3].any()


@pytest.mark.parametrize("part", ["base", "upscalers"])
def test_supports_act_in_base_and_upscalers(part: str) -> None:
    model = made((1, 8, 8))
    value = random_images(4, 1, 1, 8, 8, levels=2, seed=6)
    one, other = density_of(model, shots=2), density_of(model, shots=0)
    change = (one.conditional_log_probs(value) - other.conditional_log_probs(value)).abs().amax((0, 1, 2))
    of_base = one.generation_order < 4
    assert change[of_base if part == "base" else ~of_base].min() > 1e-6


@each_shape
def test_each_place_looks_once_and_as_its_own_network_does(event_shape: tuple[int, ...], levels: int) -> None:
    density = density_of(made(event_shape, levels), shots=2, tasks=3)
    value = random_images(2, 3, *event_shape, levels=levels, seed=9)
    weights = density.attention_weights(value)
    patches = 2 * math.prod(-(-size // 4) for size in event_shape[1:]) + 1
    assert weights.shape == (2, 3, patches, *event_shape[1:])
    torch.testing.assert_close(weights.sum(2), torch.ones_like(weights.sum(2)))
    base = strided_index([0] * (len(event_shape) - 1), 2 ** len(density.upscalers))
    assert torch.equal(weights[base], density.base.attention_weights(value[base]))
    other = value.clone()
    last = density.generation_order == density.generation_order.max()
    other[last.expand_as(value)] = 0  # the last group moves no place's attention
    assert torch.equal(density.attention_weights(other), weights)


def test_it_learns_to_double() -> None:
    """Images whose blocks are of one colour: given the base, all other pixels are certain."""
    torch.manual_seed(0)
    model = MultiscalePixelCNN((1, 4, 4), 2, **{**SMALL, "planes": 16, "penultimate": 16})
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        small = torch.randint(2, (64, 1, 1, 2, 2), generator=generator)
        image = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
        loss = -model(torch.zeros(0, 1, 1, 4, 4, dtype=torch.long)).log_prob(image).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert 4 * math.log(2) - 0.2 < loss < 4 * math.log(2) + 0.3  # of 16 ln 2 at first


def test_evaluate_and_files_take_it(tmp_path: Any) -> None:
    model = made((3, 4, 4), 256, likelihood="logistic").float()
    metadensity.save(model, tmp_path / "m.safetensors")
    loaded = metadensity.load(tmp_path / "m.safetensors")
    value = random_images(2, 1, 3, 4, 4, levels=256, seed=7)
    support = random_images(1, 1, 3, 4, 4, levels=256, seed=8)
    assert torch.equal(loaded(support).log_prob(value), model(support).log_prob(value))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": 0}, "base=0; it must be a whole number of at least 1"),
        ({"upscaler_layers": 0}, "upscaler_layers=0; it must be a whole number"),
        ({"kernel_size": 4}, "kernel_size=4; a causal convolution needs an odd kernel"),
        ({"attention": "none"}, "attention='none'; choose"),
        ({"likelihood": "none"}, "likelihood='none'; choose"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiscalePixelCNN((1, 8, 8), 2, **{**SMALL, **options})


def test_uniforms_of_a_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"uniforms have shape \(2, 1, 4, 4\); they must end in \(3, 1, 4, 4\)"):
        density_of(made((1, 4, 4)), tasks=3).sample_from_uniforms(torch.rand(2, 1, 4, 4))
