"""A gated layer in two dimensions: in torch's operations, and by the native kernel with its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.native.buffer_pool import pooled
from metadensity.native.calls import bfloat16_wanted, usable
from metadensity.native.gated_layer import (
    _INPUTS,
    _Call,
    _places,
    has_amx,
    library,
)
from metadensity.nn.functional.gate import gate


def native_layer(
    v: Tensor,
    h: Tensor,
    biases: Sequence[Tensor],
    read: Tensor | None,
    total: Tensor | None,
    convs: Sequence[Any],
    link: Tensor,
    read_weight: Tensor | None,
    out: Any,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Both stacks and the skip output of a ``GatedLayer``, or None where the kernel cannot give them.

    v, h: the stacks, ``(batch, features, H, W)``. biases: none, or for each stack ``(tasks, 2 * planes, H or 1, W or
    1)``. read: ``(batch, values, H, W)`` or None. total: what the skip output is added to, or None. convs: the two
    CausalConv. link, read_weight: of the pointwise layers. out: the pointwise layer of the last stack.

    It takes kernels of three places, where ``usable``. The gradient has a gradient, by torch's operations. Under
    autocast to bfloat16 products are of bfloat16 numbers, if the processor has tiles for them; all else is float32.
    """
    if read is None or read_weight is None:
        read = read_weight = None
    if convs[0].weight.shape[3] != 3:
        return None
    low = bfloat16_wanted()
    if low:
        v, h = v.float(), h.float()
        read, total = (None if tensor is None else tensor.float() for tensor in (read, total))
        biases = [bias.float() for bias in biases]
    weights = [convs[0].weight, convs[1].weight, link, read_weight, out.weight, out.bias]
    tensors = [v, h, read, total, *weights, *(conv.bias for conv in convs), *biases]
    if not usable(tensors, autocast=low) or library() is None or (low and not has_amx()):
        return None
    if biases and not all(bias.shape[2:] in ((1, 1), v.shape[2:]) for bias in biases):
        return None
    starts = []
    for k in range(2):
        start = convs[k].bias[:, None, None]
        starts.append((biases[k] + start if biases else start.unsqueeze(0)).flatten(2).mT)
    if starts[0].shape != starts[1].shape:
        return None
    result: tuple[Tensor, Tensor, Tensor] = _NativeLayer.apply(
        low,
        torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors),
        *starts,
        v,
        h,
        read,
        total,
        *weights,
    )
    return result


def plain_layer(
    starts_v: Tensor,
    starts_h: Tensor,
    v: Tensor,
    h: Tensor,
    read: Tensor | None,
    total: Tensor | None,
    vertical: Tensor,
    horizontal: Tensor,
    link: Tensor,
    read_weight: Tensor | None,
    out: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in torch's operations, for the gradient of the gradient. starts: ``(tasks, H * W or 1, 2 * planes)``."""
    planes, (taps, kernel) = len(vertical) // 2, vertical.shape[2:]
    reach, strict = kernel // 2, taps == kernel // 2

    def started(x: Tensor, starts: Tensor) -> Tensor:
        space = v.shape[2:] if starts.shape[1] > 1 else (1, 1)
        return (x.unflatten(0, (-1, len(starts))) + starts.mT.unflatten(2, space)).flatten(0, 1)

    z = started(F.conv2d(F.pad(v, [reach, reach, reach, -1 if strict else 0]), vertical), starts_v)
    new_v = gate(z)
    z = started(F.conv2d(F.pad(h, [reach, -1 if strict else 0]), horizontal) + F.conv2d(z, link), starts_h)
    if read is not None and read_weight is not None:
        z = z + F.conv2d(read, read_weight)
    residual, skip = F.conv2d(gate(z), out, out_bias).split([planes, len(out) - planes], 1)
    skip = skip if total is None else total + skip
    return (new_v, residual, skip) if strict else (new_v + v, residual + h, skip)


class _NativeLayer(torch.autograd.Function):
    """Inputs as those of ``plain_layer``, after whether products are of bfloat16, and a gradient may be asked for."""

    @staticmethod
    def forward(ctx: Any, low: bool, differentiable: bool, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        call = _Call(inputs, low)
        ctx.low, ctx.packed = low, call.packed
        v, out = call.given["v"], call.given["out"]
        planes = len(call.given["vertical"]) // 2
        new_v, new_h, skips = (_places(v, size) for size in (planes, planes, len(out) - planes))
        kept = pooled(len(v) * call.kept) if differentiable else None
        call.point(new_v=new_v, new_h=new_h, skips=skips, kept=kept)
        call.run("forward")
        ctx.save_for_backward(*inputs, kept)
        return new_v, new_h, skips

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, kept = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or not usable(slopes, ctx.low):  # create_graph=True: this will be differentiated
            return None, None, *_in_torch(inputs, slopes, wanted)
        call = _Call(inputs, ctx.low, ctx.packed)
        call.point(kept=kept, **dict(zip(("slope_v", "slope_h", "slope_skip"), slopes, strict=True)))
        found = call.gradients(wanted)
        call.run("backward")
        call.finish()
        starts = (
            found[name].unflatten(0, (-1, call.sizes["tasks"])).sum(0) if needed else None
            for name, needed in zip(("starts_v", "starts_h"), wanted[:2], strict=True)
        )
        found |= {"total": slopes[2]} if slopes[2] is not None else {}
        rest = (found.get(name) if needed else None for name, needed in zip(_INPUTS[2:], wanted[2:], strict=True))
        return None, None, *starts, *rest


def _in_torch(
    inputs: Sequence[Tensor | None], slopes: Sequence[Tensor | None], wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients by torch's operations, which can be differentiated again if gradients are enabled."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, as one tensor may be several of the inputs.
        own = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        asked = [tensor for tensor, needed in zip(own, wanted, strict=True) if needed and tensor is not None]
        outputs = plain_layer(*own)  # type: ignore[arg-type]
        used = [(output, slope) for output, slope in zip(outputs, slopes, strict=True) if slope is not None]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in used], asked, [s for _, s in used], create_graph=again, allow_unused=True
            )
        )
    return tuple(next(found) if needed else None for needed in wanted)
