"""The gate of gated layers, in few passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gate_plain(z: Tensor) -> Tensor:
    """tanh(a) * sigmoid(b) of the two halves of the features (dimension 1), the oracle of ``gate``."""
    a, b = z.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


def gate(z: Tensor) -> Tensor:
    """The same with one tanh over both halves, as sigmoid(b) = (1 + tanh(b / 2)) / 2, and a gradient by hand.

    Half the features of every place are no contiguous memory in the channels-last format, which makes tanh and
    sigmoid of a half several times slower than of the whole. Under torch.func the plain form is used, and where it is
    compiled, which fuses it.
    """
    if torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling():
        return gate_plain(z)
    result: Tensor = _Gate.apply(z)
    return result


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        planes = z.shape[1] // 2
        factor = z.new_ones(2 * planes)
        factor[planes:] = 0.5
        both = torch.tanh_(z * factor.view(-1, *[1] * (z.ndim - 2)))
        a, b = both.split(planes, 1)
        ctx.save_for_backward(z, both)
        return torch.addcmul(a, a, b).mul_(0.5)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        z, both = ctx.saved_tensors
        planes = z.shape[1] // 2
        if torch.is_grad_enabled():  # create_graph=True: this gradient will be differentiated
            a, b = z.split(planes, 1)
            a, b = torch.tanh(a), torch.sigmoid(b)
            return torch.cat([gradient * b * (1 - a * a), gradient * a * b * (1 - b)], 1)
        a, b = both.split(planes, 1)
        half = gradient * 0.5
        slope = torch.empty_like(both)
        torch.addcmul(half, half, b, out=slope[:, :planes])
        torch.mul(half.mul_(0.5), a, out=slope[:, planes:])
        result: Tensor = torch.ops.aten.tanh_backward(slope, both)
        return result
