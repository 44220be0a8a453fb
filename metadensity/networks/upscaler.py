"""The network that fills in an image of twice the size, a group of pixels at a time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.likelihoods import build_likelihood
from metadensity.networks.conditioning import Conditioning
from metadensity.nn.attention import SupportAttention
from metadensity.nn.convolution import PerAxis, around, per_axis, pointwise
from metadensity.nn.functional.gate import gate
from metadensity.nn.functional.gated_layer import add_per_task
from metadensity.nn.inputs import positions, to_unit_range


def block_offsets(space_dims: int) -> list[tuple[int, ...]]:
    """The places of a block of two a side, in the order in which they are known: the image of half the size first."""
    return list(itertools.product((0, 1), repeat=space_dims))


def strided_index(offset: Sequence[int], stride: int = 2) -> Any:
    """The index of every ``stride``-th place from ``offset`` on, in all space dimensions."""
    return (..., *(slice(first, None, stride) for first in offset))


class UpscalerLayer(nn.Module):
    """A gated residual layer that sees both sides, with a skip output; the conditions are those of ``GatedLayer``."""

    def __init__(
        self, planes: int, skip: int, space_dims: int, kernel_size: PerAxis, context: int, attended: int
    ) -> None:
        super().__init__()
        self.conv = around(planes, 2 * planes, space_dims, kernel_size)
        self.context = nn.Linear(context, 2 * planes, bias=False)
        self.read = pointwise(attended, 2 * planes, space_dims, bias=False) if attended else None
        self.out = pointwise(planes, planes + skip, space_dims)
        self.planes, self.skip = planes, skip

    def forward(self, x: Tensor, bias: Tensor, attended: Tensor | None) -> tuple[Tensor, Tensor]:
        """``(batch, planes, *space)`` to the next, and the skip output ``(batch, skip, *space)``."""
        z = add_per_task(self.conv(x), bias)
        if self.read is not None and attended is not None:
            z = z + self.read(attended)
        residual, skip = self.out(gate(z)).split([self.planes, self.skip], dim=1)
        return x + residual, skip


class Upscaler(nn.Module):
    """p(x | every second pixel of x), group by group; a group has one place of each block of two a side.

    The network works on blocks: pixels of the groups known so far are channels, those of later ones are zero, and a
    channel a place of the block says which are known. All pixels of a group are computed in one pass, and independent
    of one another given the groups before it (Reed et al. 2017, "Parallel Multiscale Autoregressive Density
    Estimation", section 3, as recalled); the channels of a pixel follow one another in the head.
    Departure: one network for all groups of a scale, told by the channels which group is next, where the paper has one
    a group. The same conditions as a PixelCNN: f(s) biases all gates, and the middle layer's activations query the
    support patches, whose values condition the second half of the layers.

    event_shape: of the image of the full size. Sizes need not be even: blocks at the end are cut off.
    """

    positions: Tensor

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        layers: int,
        planes: int,
        penultimate: int,
        kernel_size: PerAxis,
        context: int,
        attention: str,
        likelihood: str | Mapping[str, Any],
        components: int,
    ) -> None:
        super().__init__()
        channels, *space = event_shape
        self.space_dims, self.levels, self.channels = len(space), levels, channels
        self.blocks = [-(-size // 2) for size in space]
        self.padding = [pad for size in reversed(space) for pad in (0, size % 2)]
        self.offsets = block_offsets(self.space_dims)
        # Groups to be filled in: in a dimension of one place there is no second one.
        self.groups = [
            number
            for number, offset in enumerate(self.offsets)
            if number and all(first < size for first, size in zip(offset, space, strict=True))
        ]
        sides = per_axis("kernel_size", kernel_size, self.space_dims)
        self.attention_layer, self.reach = layers // 2, min(sides) // 2 * (layers + 1)  # in blocks, without attention
        self.register_buffer("positions", positions(tuple(self.blocks)), persistent=False)
        inputs = len(self.offsets) * (channels + 1) + self.space_dims
        self.first = around(inputs, planes, self.space_dims, kernel_size)
        self.layers = nn.ModuleList(
            UpscalerLayer(
                planes, penultimate, self.space_dims, kernel_size, context, planes if i >= self.attention_layer else 0
            )
            for i in range(layers)
        )
        self.attention = SupportAttention(planes, planes, planes, self.space_dims, attention)
        self.penult = pointwise(penultimate, penultimate, self.space_dims)
        self.head = build_likelihood(likelihood, penultimate, channels, levels, self.space_dims, components=components)

    def conditioning(self, tasks: int, vector: Tensor, patches: tuple[Tensor, Tensor]) -> Conditioning:
        """Prepare a batch of tasks from task vectors ``(tasks, context)`` and patch keys and values."""
        biases = [
            cast(UpscalerLayer, layer).context(vector)[(...,) + (None,) * self.space_dims] for layer in self.layers
        ]
        return Conditioning(tasks, [[bias] for bias in biases], self.attention.with_null_entry(*patches))

    def features(self, pixels: Tensor, group: int, condition: Conditioning) -> Tensor:
        """What is known of group number ``group`` of ``groups``: ``(batch, penultimate, *space of the group)``.

        pixels: ``(samples * tasks, C, *space)`` integers; only those of groups before it are read.
        """
        x = self.first(self._known(pixels, group))
        assert condition.memory is not None
        attended, skip_sum = None, None
        for i, (layer, (bias,)) in enumerate(zip(self.layers, condition.biases, strict=True)):
            if i == self.attention_layer:
                attended = self.attention(condition.memory, x)
            x, skip = layer(x, bias, attended)
            skip_sum = skip if skip_sum is None else skip_sum + skip
        assert skip_sum is not None
        return cast(Tensor, self.penult(F.relu(skip_sum)))[self._inside(pixels, group)]

    def attention_weights(self, pixels: Tensor, group: int, condition: Conditioning) -> Tensor:
        """Where each place of a group looks, ``(samples, tasks, J, *space of the group)``; see ``PixelCNN``'s."""
        assert condition.memory is not None
        x = self.first(self._known(pixels, group))
        for layer, (bias,) in list(zip(self.layers, condition.biases, strict=True))[: self.attention_layer]:
            x, _ = layer(x, bias, None)
        return self.attention.weights(condition.memory, x)[self._inside(pixels, group)]

    def _inside(self, pixels: Tensor, group: int) -> Any:
        """The index of a group's places in all blocks: at odd sizes the last block has not all of them."""
        sizes = [(size - first + 1) // 2 for size, first in zip(pixels.shape[2:], self.offsets[group], strict=True)]
        return (..., *(slice(size) for size in sizes))

    def _known(self, pixels: Tensor, group: int) -> Tensor:
        """The input of the network: pixels and whether they are known, a place of the block after the other."""
        scaled = to_unit_range(pixels, self.levels, self.positions.dtype)
        inside = self.positions.new_ones(1, 1, *pixels.shape[2:])
        x, there = (F.pad(part, self.padding) for part in (scaled, inside))  # odd sizes: the last block is cut off
        parts: list[Tensor] = []
        for number, offset in enumerate(self.offsets):
            known = there[strided_index(offset)] * float(number < group)
            parts += [x[strided_index(offset)] * known, known.expand(len(x), *known.shape[1:])]
        return torch.cat([*parts, self.positions.expand(len(x), *self.positions.shape)], 1)
