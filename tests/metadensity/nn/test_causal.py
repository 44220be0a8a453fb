"""Causal convolutions against full ones with a mask, and position channels."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from torch import Tensor

from metadensity.nn.causal import CausalConv, GatedLayer
from metadensity.nn.convolution import CONVOLVE
from metadensity.nn.functional.gate import gate
from metadensity.nn.functional.gated_layer import add_per_task
from metadensity.nn.inputs import PixelInput, positions, to_unit_range

SPACES = {1: (9,), 2: (5, 6), 3: (3, 5, 4)}
CONVS = [
    (space_dims, stack, kernel_size, excludes_current, dilation)
    for space_dims in SPACES
    for stack in range(space_dims)
    for kernel_size in (3, 5)
    for excludes_current, dilation in ((False, 1), (True, 1), (False, 2), (False, 3))
]
each_conv = pytest.mark.parametrize(("space_dims", "stack", "kernel_size", "excludes_current", "dilation"), CONVS)


def masked(conv: CausalConv, x: Tensor) -> Tensor:
    """The oracle: a full kernel whose weights are zero wherever the stack may not look, entry by entry."""
    size = 2 * (conv.reach // conv.dilation) + 1
    full = x.new_zeros(conv.weight.shape[0], x.shape[1], *[size] * conv.space_dims)
    for place in itertools.product(range(size), repeat=conv.space_dims):
        offset = [index - size // 2 for index in place]
        before, here = offset[: conv.stack], offset[conv.stack]
        if any(before) or here > 0 or (here == 0 and conv.excludes_current):
            continue
        cropped = [0] * conv.stack + [place[conv.stack]] + list(place[conv.stack + 1 :])
        full[(slice(None), slice(None), *place)] = conv.weight[(slice(None), slice(None), *cropped)]
    return CONVOLVE[conv.space_dims](x, full, conv.bias, padding=conv.reach, dilation=conv.dilation)


@each_conv
def test_convolution_equals_a_masked_one(
    space_dims: int, stack: int, kernel_size: int, excludes_current: bool, dilation: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = CausalConv(3, 4, space_dims, stack, kernel_size, excludes_current, dilation).double()
    x = torch.randn(2, 3, *SPACES[space_dims], generator=generator, dtype=torch.float64)
    torch.testing.assert_close(conv(x), masked(conv, x), rtol=0, atol=1e-12)
    assert conv.weight.shape[2:].numel() == conv.taps * kernel_size ** (space_dims - stack - 1), (
        "weights that no place uses"
    )


@each_conv
def test_convolving_a_window_is_convolving_the_whole(
    space_dims: int, stack: int, kernel_size: int, excludes_current: bool, dilation: int
) -> None:
    """What the cached sampler relies on: the slice at t needs no more than the ``taps`` padded slices from t on."""
    conv = CausalConv(3, 4, space_dims, stack, kernel_size, excludes_current, dilation).double()
    x = torch.randn(2, 3, *SPACES[space_dims], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sides = [0, 0] * stack + [conv.reach, 0] + [conv.reach, conv.reach] * (space_dims - stack - 1)
    pairs = list(zip(sides[::2], sides[1::2], strict=True))
    padded = torch.nn.functional.pad(x, [side for pair in reversed(pairs) for side in pair])
    whole = conv(x)
    for t in range(SPACES[space_dims][stack]):
        window = padded[(slice(None),) * (2 + stack) + (conv.taps_from(t),)]
        assert window.shape[2 + stack] == conv.taps
        torch.testing.assert_close(conv.convolve(window), whole.narrow(2 + stack, t, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [0, 1, 2, 4, -3])
def test_kernels_that_have_no_middle(kernel_size: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"kernel_size={kernel_size}; a causal convolution needs an odd")):
        CausalConv(1, 1, 2, 0, kernel_size, excludes_current=True)


def test_a_first_layer_has_no_dilation() -> None:
    with pytest.raises(ValueError, match="dilation=2; a convolution that leaves out the current place has no dilation"):
        CausalConv(1, 1, 1, 0, 3, excludes_current=True, dilation=2)


def test_initial_weights_are_those_of_torch() -> None:
    conv = CausalConv(8, 500, 2, 0, 3, excludes_current=False)
    bound = 1 / math.sqrt(8 * 2 * 3)
    for tensor in (conv.weight.detach(), conv.bias.detach()):
        assert tensor.abs().max() <= bound
        assert tensor.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_gate_and_bias_per_task() -> None:
    z = torch.tensor([[[0.5], [-1.0]]])
    assert gate(z).item() == pytest.approx(math.tanh(0.5) / (1 + math.exp(1.0)))
    x = torch.arange(12.0).view(6, 1, 2)  # 3 samples of 2 tasks, tasks fastest
    bias = torch.tensor([100.0, 200.0]).view(2, 1, 1)
    assert (add_per_task(x, bias) - x)[:, 0, 0].tolist() == [100, 200, 100, 200, 100, 200]


def test_a_gated_layer_compiles_to_one_graph() -> None:
    """As torch.compile takes it, with nothing left to Python; what a compiler makes of the graph is its own affair."""
    layer = GatedLayer(3, 3, 2, space_dims=2, kernel_size=3, context=5, attended=4)
    generator = torch.Generator().manual_seed(0)
    stacks = [torch.randn(6, 3, 4, 5, generator=generator) for _ in range(2)]
    biases = [bias.detach() for bias in layer.biases(torch.randn(2, 5, generator=generator))]  # torch warns of others
    attended = torch.randn(6, 4, 4, 5, generator=generator)
    (v, h), skip = torch.compile(layer, backend="eager", fullgraph=True)(stacks, biases, attended)
    new, skip_sum = layer(stacks, biases, attended)
    torch.testing.assert_close([v, h, skip], [*new, skip_sum])


@pytest.mark.parametrize("excludes_current", [True, False])
def test_gated_layer_by_hand(excludes_current: bool) -> None:
    """Equation 4 of Reed et al. 2018 in two dimensions, written out."""
    layer = GatedLayer(
        3, 3, 2, space_dims=2, kernel_size=3, excludes_current=excludes_current, context=5, attended=4
    ).double()
    generator = torch.Generator().manual_seed(0)
    stacks = [torch.randn(6, 3, 4, 5, dtype=torch.float64, generator=generator) for _ in range(2)]
    vector = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    attended = torch.randn(6, 4, 4, 5, dtype=torch.float64, generator=generator)
    new, skip = layer(stacks, layer.biases(vector), attended)

    vectors = vector.repeat(3, 1)
    vertical = layer.convs[0](stacks[0]) + layer.contexts[0](vectors)[:, :, None, None]
    horizontal = layer.convs[1](stacks[1]) + layer.links[0](vertical) + layer.read(attended)
    horizontal = horizontal + layer.contexts[1](vectors)[:, :, None, None]
    out = layer.out(torch.tanh(horizontal[:, :3]) * torch.sigmoid(horizontal[:, 3:]))
    expected = [torch.tanh(vertical[:, :3]) * torch.sigmoid(vertical[:, 3:]), out[:, :3]]
    if not excludes_current:
        expected = [part + before for part, before in zip(expected, stacks, strict=True)]
    for part, wanted in zip([*new, skip], [*expected, out[:, 3:]], strict=True):
        torch.testing.assert_close(part, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("space", [(5,), (3, 4), (2, 3, 5)])
def test_positions_run_from_minus_one_to_one(space: tuple[int, ...]) -> None:
    grid = positions(space)
    assert grid.shape == (len(space), *space)
    for dim, size in enumerate(space):
        along = grid[dim].movedim(dim, 0).reshape(size, -1)
        assert along[0].unique().tolist() == [-1]
        assert along[-1].unique().tolist() == [1]
        assert (along.diff(dim=0) > 0).all()
        torch.testing.assert_close(along, along[:, :1].expand_as(along))


def test_a_dimension_of_one_place_is_in_the_middle() -> None:
    assert positions((1, 3))[0].tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_pixels_are_scaled_to_the_same_range(levels: int) -> None:
    pixels = torch.arange(levels, dtype=torch.uint8 if levels <= 256 else torch.int64)
    scaled = to_unit_range(pixels, levels, torch.float64)
    torch.testing.assert_close(scaled, torch.linspace(-1, 1, levels, dtype=torch.float64))


def test_input_marks_places_and_takes_slices() -> None:
    encode = PixelInput((2, 3, 4), 5)
    pixels = torch.randint(5, (6, 2, 3, 4), generator=torch.Generator().manual_seed(0))
    whole = encode(pixels)
    assert whole.shape == (6, 4, 3, 4)
    torch.testing.assert_close(whole[:, :2], to_unit_range(pixels, 5, torch.float32))
    torch.testing.assert_close(whole[:, 2:], positions((3, 4)).expand(6, 2, 3, 4))
    part = (slice(None), slice(None), slice(1, 2), slice(2, 4))
    assert torch.equal(encode(pixels, part), whole[part])
