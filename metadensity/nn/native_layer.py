"""Gated layers in two dimensions as a native kernel: float32 on the CPU, several times faster than in torch."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity import native
from metadensity.nn.gate import gate
from metadensity.nn.native_calls import bfloat16_wanted, in_threads, shares, usable
from metadensity.nn.pooled import pooled

SOURCE = Path(native.__file__).with_name("native_layer.cpp")
_IMAGES_A_THREAD = 2  # fewer are not worth a thread
_WEIGHTS = ("vertical", "horizontal", "link", "read_weight", "out", "out_bias")
_INPUTS = ("starts_v", "starts_h", "v", "h", "read", "total", *_WEIGHTS)
_IMAGES = ("v", "h", "read", "total")


class _Layer(ctypes.Structure):
    """``Layer`` in the source."""

    _sizes = "batch tasks height width inputs planes skip reads taps residual places threads amx"
    _pointers = (
        "vertical horizontal link read_weight out out_bias starts_v starts_h v h read total new_v new_h skips kept "
        "slope_v slope_h slope_skip for_v for_h for_read for_starts_v for_starts_h for_vertical for_horizontal "
        "for_link for_read_weight for_out for_out_bias packed sums"
    )
    _fields_ = (
        *((name, ctypes.c_int64) for name in _sizes.split()),
        *((name, ctypes.c_void_p) for name in _pointers.split()),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it is switched off or cannot be built (which is logged, once)."""
    if (found := native.load(SOURCE, "Layers")) is None:
        return None
    pointer, number = ctypes.POINTER(_Layer), ctypes.c_int64
    found.layer_amx.argtypes, found.layer_amx.restype = [], number
    found.layer_sizes.argtypes = [pointer, ctypes.POINTER(number)]
    found.layer_pack.argtypes = found.layer_finish.argtypes = [pointer]
    found.layer_forward.argtypes = found.layer_backward.argtypes = [pointer, number, number, number]
    for name in ("sizes", "pack", "finish", "forward", "backward"):
        getattr(found, f"layer_{name}").restype = None
    return found


@functools.cache
def has_amx() -> bool:
    """Whether the kernel can multiply bfloat16 numbers in the processor's tiles."""
    found = library()
    return found is not None and bool(found.layer_amx())


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


def _places(like: Tensor, features: int) -> Tensor:
    """Room for ``(batch, features, H, W)``, channels last."""
    return pooled(len(like), *like.shape[2:], features).permute(0, 3, 1, 2)


def _channels_last(tensor: Tensor) -> Tensor:
    """In memory as the kernel reads it, whatever its strides of dimensions of one place are said to be."""
    return tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class _Call:
    """The arguments of one call of the kernel, and what they point to."""

    def __init__(self, inputs: Sequence[Tensor | None], low: bool, packed: Tensor | None = None) -> None:
        found = library()
        assert found is not None
        self.library = found
        self.given: dict[str, Tensor] = {}
        for name, tensor in zip(_INPUTS, inputs, strict=True):
            if tensor is not None:
                own = tensor.detach()
                self.given[name] = _channels_last(own) if name in _IMAGES else own.contiguous()
        v, vertical, starts = self.given["v"], self.given["vertical"], self.given["starts_v"]
        planes, (taps, kernel) = len(vertical) // 2, vertical.shape[2:]
        batch, features, height, width = v.shape
        self._ranges = shares(batch, _IMAGES_A_THREAD)
        self.sizes = {
            "batch": batch,
            "tasks": len(starts),
            "height": height,
            "width": width,
            "inputs": features,
            "planes": planes,
            "skip": len(self.given["out"]) - planes,
            "reads": self.given["read"].shape[1] if "read" in self.given else 0,
            "taps": taps,
            "residual": taps > kernel // 2,
            "places": starts.shape[1],
            "threads": len(self._ranges),
            "amx": low,
        }
        self._layer = _Layer(**self.sizes)
        self._kept: list[Tensor] = []
        self.point(**self.given)
        sizes = (ctypes.c_int64 * 3)()
        found.layer_sizes(ctypes.byref(self._layer), sizes)
        size, self._sums, self.kept = sizes
        self.packed = v.new_empty(size) if packed is None else packed
        self.point(packed=self.packed)
        if packed is None:
            found.layer_pack(ctypes.byref(self._layer))

    def point(self, **tensors: Tensor | None) -> None:
        """Let the kernel see these. Images are brought into its memory format."""
        for name, tensor in tensors.items():
            if tensor is not None:
                own = _channels_last(tensor) if name.startswith("slope") else tensor
                self._kept.append(own)
                setattr(self._layer, name, own.data_ptr())

    def gradients(self, wanted: Sequence[bool]) -> dict[str, Tensor]:
        """Room for the gradients of the inputs, by name; those of images only where wanted."""
        asked = dict(zip(_INPUTS, wanted, strict=True))
        asked["v"] = asked["h"] = asked["v"] or asked["h"]
        found: dict[str, Tensor] = {}
        for name, tensor in self.given.items():
            if name in _IMAGES:
                if asked[name] and name != "total":
                    found[name] = _places(tensor, tensor.shape[1])
            elif name.startswith("starts"):
                found[name] = tensor.new_empty(self.sizes["batch"], *tensor.shape[1:])
            else:
                found[name] = torch.empty_like(tensor)
        self.point(sums=self.given["v"].new_empty(len(self._ranges) * self._sums))
        self.point(**{f"for_{name}": tensor for name, tensor in found.items()})
        return found

    def run(self, name: str) -> None:
        """Let the threads go through their images."""
        kernel: Callable[..., None] = getattr(self.library, f"layer_{name}")
        in_threads(lambda *span: kernel(ctypes.byref(self._layer), *span), self._ranges)

    def finish(self) -> None:
        """Add up what the threads found."""
        self.library.layer_finish(ctypes.byref(self._layer))
