"""Gated layers in two dimensions as a native kernel: float32 on the CPU, several times faster than in torch."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metadensity.native.buffer_pool import pooled
from metadensity.native.build import CSRC, load
from metadensity.native.calls import in_threads, shares

SOURCE = CSRC / "gated_layer/gated_layer.cpp"
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
    if (found := load(SOURCE, "Layers")) is None:
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
