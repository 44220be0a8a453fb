"""The last stack of a network as matrices: what runs once a pixel, in torch and in the native kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.causal import GatedLayer


@dataclass(frozen=True)
class LastStack:
    """Weights of the last stack of all layers, inputs first, and where each looks in its line of inputs.

    reach: places before a line, the same for all layers, so that a place has one index in each. For each layer:
    starts: of the window of place 0; taps: numbers in it; features: of the inputs; dilations: places from one tap to
    the next; kept: places that it looks back at, itself among them, if the line is a ring of so many, or 0 for a line
    that is kept whole, whose windows are contiguous; kernels ``(taps, 2 * planes)``; residuals ``(planes, planes)``
    with residual_biases. Of all layers together: skips ``(layers * planes, skip)`` with skip_bias; reads ``(values,
    layers that read * 2 * planes)``, None where none reads.
    """

    reach: int
    starts: list[int]
    taps: list[int]
    dilations: list[int]
    kept: list[int]
    features: list[int]
    kernels: list[Tensor]
    residuals: list[Tensor]
    residual_biases: list[Tensor]
    skips: Tensor
    skip_bias: Tensor
    reads: Tensor | None

    @classmethod
    def of(cls, network: PixelCNN) -> LastStack:
        """That of a network, which is read once: make it anew when the weights have changed."""
        layers: list[GatedLayer] = list(network.layers)  # type: ignore[arg-type]
        convs = [layer.conv(network.space_dims - 1) for layer in layers]
        reach, planes = max(conv.reach for conv in convs), network.planes
        rings = any(conv.dilation > 1 for conv in convs)
        outs = [layer.out for layer in layers]
        matrices = [out.weight.flatten(1).T for out in outs]  # (planes, planes + skip)
        reads = [layer.read.weight.flatten(1).T for layer in layers if layer.read is not None]
        return cls(
            reach=reach,
            starts=[reach - conv.reach for conv in convs],
            taps=[conv.taps * conv.weight.shape[1] for conv in convs],
            dilations=[conv.dilation for conv in convs],
            kept=[(conv.taps - 1) * conv.dilation + 1 if rings else 0 for conv in convs],
            features=[conv.weight.shape[1] for conv in convs],
            kernels=[conv.weight.flatten(2).permute(2, 1, 0).flatten(0, 1).contiguous() for conv in convs],
            residuals=[matrix[:, :planes].contiguous() for matrix in matrices],
            residual_biases=[out.bias[:planes] for out in outs],
            skips=torch.cat([matrix[:, planes:] for matrix in matrices]),
            skip_bias=torch.stack([out.bias[planes:] for out in outs]).sum(0),
            reads=torch.cat(reads, 1) if reads else None,
        )
