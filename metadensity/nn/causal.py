"""Causal layers in one, two and three dimensions.

Pixels are ordered as a raster scan reads them: the first space dimension slowest, the last one
fastest. The past of a pixel t is covered by one *stack* of features a dimension: stack k looks at
the places that agree with t in the dimensions before k, lie before it in dimension k, and are
anywhere in the dimensions after k. In two dimensions stack 0 is the vertical and stack 1 the
horizontal stack of the gated PixelCNN (van den Oord et al. 2016, "Conditional Image Generation
with PixelCNN Decoders", section 2.2); in one dimension the only stack is a causal convolution as
in WaveNet; in three there are a plane, a row and a pixel stack. No pixel of the past is left out
(no blind spot), and no weight is masked: kernels are cropped to their causal half and shifted, so
nothing is computed to be thrown away, and an adapted model is causal whatever its weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from metadensity.native.sequence_layers import Form
from metadensity.nn.convolution import CONV, CONVOLVE, PerAxis, is_plain, per_axis, pointwise
from metadensity.nn.functional import sequence_layers
from metadensity.nn.functional.gated_layer import LayerWeights, causal_convolution, gated_layer, gated_layer_of


class CausalConv(nn.Module):
    """The convolution of one stack: ``(batch, in, *space)`` to ``(batch, out, *space)``.

    stack: the dimension whose past is seen, 0 to ``space_dims - 1``.
    kernel_size: the full, odd width K, one for all dimensions or one for each. The kernel spans 1 place in dimensions
        before ``stack``, K in those after it, and in dimension ``stack`` the (K - 1) / 2 places before the current one.
    excludes_current: leave out the current place (first layer); otherwise it is included, which is causal as
        soon as the inputs themselves are strictly causal.
    dilation: places from one tap of the kernel to the next, in all dimensions that it spans or in each. The first layer
        has none: what it left out between two taps, the place just before among them, no later layer could bring back.

    dilations and reaches, places from the current one to the last tap, are of each dimension; dilation and reach are
    those of the stack's own.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        space_dims: int,
        stack: int,
        kernel_size: PerAxis,
        excludes_current: bool,
        dilation: PerAxis = 1,
    ) -> None:
        super().__init__()
        sizes = per_axis("kernel_size", kernel_size, space_dims)
        if min(sizes) < 1 or max(sizes) < 3 or not all(size % 2 for size in sizes):
            raise ValueError(
                f"kernel_size={kernel_size}; a causal convolution needs an odd kernel of 3 or more, or 1 along some of "
                "its dimensions."
            )
        if excludes_current and min(sizes) < 3:
            raise ValueError(
                f"kernel_size={kernel_size}; a convolution that leaves out the current place needs 3 or more along "
                "each dimension. Give the first layer a kernel of its own, first_kernel."
            )
        self.dilations = per_axis("dilation", dilation, space_dims)
        if excludes_current and max(self.dilations) != 1:
            raise ValueError(f"dilation={dilation}; a convolution that leaves out the current place has no dilation.")
        self.space_dims, self.stack, self.excludes_current = space_dims, stack, excludes_current
        self.reaches = tuple(size // 2 * step for size, step in zip(sizes, self.dilations, strict=True))
        self.taps = sizes[stack] // 2 + (not excludes_current)
        kernel = [1] * stack + [self.taps, *sizes[stack + 1 :]]
        self.weight = nn.Parameter(torch.empty(out_features, in_features, *kernel))
        self.bias = nn.Parameter(torch.empty(out_features))
        bound = 1 / math.sqrt(in_features * math.prod(kernel))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.uniform_(self.bias, -bound, bound)

    @property
    def dilation(self) -> int:
        """Places from one tap to the next in the stack's own dimension."""
        return self.dilations[self.stack]

    @property
    def reach(self) -> int:
        """Places from the current one back to the last tap in the stack's own dimension."""
        return self.reaches[self.stack]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the whole space at once."""
        return causal_convolution(x, self.weight, self.bias, self.stack, self.excludes_current, self.dilations)

    def taps_from(self, start: int) -> slice:
        """The slices of the stack's dimension, padded by ``reach`` in front, that the slice at ``start`` looks at."""
        return slice(start, start + (self.taps - 1) * self.dilation + 1, self.dilation)

    def convolve(self, taps: Tensor) -> Tensor:
        """One slice, of the inputs at ``taps_from`` it, padded by ``reaches`` on both sides in what follows."""
        dilations = [1] * (self.stack + 1) + list(self.dilations[self.stack + 1 :])
        return CONVOLVE[self.space_dims](taps, self.weight, self.bias, dilation=dilations)


class GatedLayer(nn.Module):
    """One gated layer over all stacks (Conditional PixelCNN, equation 5; Reed et al. 2018, equation 4).

    Each stack is convolved, receives the pre-activations of the stack before it through a pointwise
    link, and is gated; the last stack has a residual and a skip output.
    Departure: the stacks before the last have a residual as well (12 layers train faster with it).

    context: features of the task vector f(s) that biases every gate; 0 for none.
    attended: features of a per-place context given to the gates of the last stack; 0 for none.
    kernel_size and dilation: of all stacks, see ``CausalConv``.
    stacks: how many there are, the first ones; None: one a dimension. With the first alone a place sees the slices of
        the first dimension before its own, and nothing of its own.
    """

    def __init__(
        self,
        in_features: int,
        planes: int,
        skip: int,
        space_dims: int,
        kernel_size: PerAxis,
        excludes_current: bool = False,
        context: int = 0,
        attended: int = 0,
        dilation: PerAxis = 1,
        stacks: int | None = None,
    ) -> None:
        super().__init__()
        self.planes, self.skip, self.residual, self.space_dims = planes, skip, not excludes_current, space_dims
        stacks = space_dims if stacks is None else stacks
        self.convs = nn.ModuleList(
            CausalConv(in_features, 2 * planes, space_dims, stack, kernel_size, excludes_current, dilation)
            for stack in range(stacks)
        )
        self.links = nn.ModuleList(pointwise(2 * planes, 2 * planes, space_dims, bias=False) for _ in range(stacks - 1))
        self.contexts = nn.ModuleList(
            nn.Linear(context, 2 * planes, bias=False) for _ in range(stacks if context else 0)
        )
        self.read = pointwise(attended, 2 * planes, space_dims, bias=False) if attended else None
        self.out = pointwise(planes, planes + skip, space_dims)

    def conv(self, stack: int) -> CausalConv:
        """The convolution of one stack."""
        return cast(CausalConv, self.convs[stack])

    @property
    def is_plain(self) -> bool:
        """Whether its ``weights`` say all that it does; otherwise its parts have to be called. See ``is_plain``."""
        pointwise = [*self.links, self.out, *([] if self.read is None else [self.read])]
        return (
            is_plain(self, GatedLayer)
            and all(is_plain(conv, CausalConv) for conv in self.convs)
            and all(is_plain(part, CONV[self.space_dims]) for part in pointwise)
        )

    def biases(self, vector: Tensor) -> list[Tensor]:
        """What the task vector ``(tasks, context)`` adds to the gates: ``(tasks, 2 * planes, 1, ...)`` a stack."""
        return [context(vector)[(...,) + (None,) * self.space_dims] for context in self.contexts]

    def weights(self) -> LayerWeights:
        """Its tensors as ``gated_layer`` takes them."""
        convs = [self.conv(k) for k in range(len(self.convs))]
        links = [cast(Tensor, link.weight) for link in self.links]
        from_attention = None if self.read is None else self.read.weight
        weights = [conv.weight for conv in convs]
        return LayerWeights(
            weights, [conv.bias for conv in convs], links, self.out.weight, self.out.bias, from_attention
        )

    def forward(
        self, stacks: list[Tensor], biases: list[Tensor], attended: Tensor | None = None, skip_sum: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Map stacks ``(batch, features, *space)`` to the next ones, and to ``skip_sum`` plus the skip output."""
        if not self.is_plain:
            return gated_layer_of(
                self.convs, self.links, self.out, self.read, stacks, biases, attended, skip_sum, self.residual
            )
        conv = self.conv(0)
        return gated_layer(
            stacks, self.weights(), biases, attended, skip_sum, conv.excludes_current, self.residual, conv.dilations
        )


def gated_layers(
    layers: Sequence[GatedLayer],
    stacks: list[Tensor],
    biases: Sequence[list[Tensor]],
    attended: Tensor | None = None,
    skip_sum: Tensor | None = None,
) -> tuple[list[Tensor], Tensor]:
    """``GatedLayer.forward`` of one layer or more after another; in one dimension at once, where a kernel can."""
    if layers[0].space_dims == 1 and all(layer.is_plain for layer in layers):
        weights = [layer.weights() for layer in layers]
        if sequence_layers.supports(stacks[0], weights, biases, attended, skip_sum):
            forms = [Form(layer.conv(0).dilation, layer.conv(0).excludes_current) for layer in layers]
            x, skips = sequence_layers.sequence_layers(stacks[0], weights, biases, attended, skip_sum, forms)
            return [x], skips
    for layer, own in zip(layers, biases, strict=True):
        stacks, skip_sum = layer(stacks, own, attended, skip_sum)
    assert skip_sum is not None
    return stacks, skip_sum
