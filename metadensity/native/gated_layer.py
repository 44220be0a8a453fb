"""Gated layers in two dimensions as a native kernel: float32 on the CPU, several times faster than in torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metadensity.native.buffer_pool import empty_from_pool
from metadensity.native.build import CSRC, Arguments, Kernel, fields
from metadensity.native.calls import in_threads, shares

_IMAGES_A_THREAD = 2  # fewer are not worth a thread
_WEIGHTS = ("vertical", "horizontal", "link", "from_attention", "out", "out_bias")
_INPUTS = ("bias_v", "bias_h", "v", "h", "attended", "skip_sum", *_WEIGHTS)
_IMAGES = ("v", "h", "attended", "skip_sum")
GRADIENTS = ("grad_new_v", "grad_new_h", "grad_skips")  # of the outputs


class _Layer(Arguments):
    """``Layer`` in the source."""

    _fields_ = fields(
        "batch tasks height width inputs planes skip reads taps residual places threads amx",
        "vertical horizontal link from_attention out out_bias bias_v bias_h v h attended skip_sum new_v new_h skips "
        "saved grad_new_v grad_new_h grad_skips grad_v grad_h grad_attended grad_bias_v grad_bias_h grad_vertical "
        "grad_horizontal grad_link grad_from_attention grad_out grad_out_bias packed sums",
    )


_number, _pointer = ctypes.c_int64, ctypes.POINTER(_Layer)
KERNEL = Kernel(
    CSRC / "gated_layer/gated_layer.cpp",
    "Gated layers",
    _Layer,
    {
        "layer_amx": ([], _number),
        "layer_sizes": ([_pointer, ctypes.POINTER(_number)], None),
        "layer_pack": ([_pointer], None),
        "layer_forward": ([_pointer, _number, _number, _number], None),
        "layer_backward": ([_pointer, _number, _number, _number], None),
        "layer_finish": ([_pointer], None),
    },
)
library = KERNEL.library


def has_amx() -> bool:
    """Whether the kernel can multiply bfloat16 numbers in the processor's tiles."""
    found = library()
    return found is not None and bool(found.layer_amx())


def _places(like: Tensor, features: int) -> Tensor:
    """Room for ``(batch, features, H, W)``, channels last."""
    return empty_from_pool(len(like), *like.shape[2:], features).permute(0, 3, 1, 2)


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
        v, vertical, bias = self.given["v"], self.given["vertical"], self.given["bias_v"]
        planes, (taps, kernel) = len(vertical) // 2, vertical.shape[2:]
        batch, features, height, width = v.shape
        self._ranges = shares(batch, _IMAGES_A_THREAD)
        self.sizes = {
            "batch": batch,
            "tasks": len(bias),
            "height": height,
            "width": width,
            "inputs": features,
            "planes": planes,
            "skip": len(self.given["out"]) - planes,
            "reads": self.given["attended"].shape[1] if "attended" in self.given else 0,
            "taps": taps,
            "residual": taps > kernel // 2,
            "places": bias.shape[1],
            "threads": len(self._ranges),
            "amx": low,
        }
        self._layer = _Layer(**self.sizes)
        self._held: list[Tensor] = []
        self.point(**self.given)
        sizes = (ctypes.c_int64 * 3)()
        found.layer_sizes(ctypes.byref(self._layer), sizes)
        size, self._sums, self.saved = sizes
        self.packed = v.new_empty(size) if packed is None else packed
        self.point(packed=self.packed)
        if packed is None:
            found.layer_pack(ctypes.byref(self._layer))

    def point(self, **tensors: Tensor | None) -> None:
        """Let the kernel see these. Gradients of outputs are brought into its memory format."""
        for name, tensor in tensors.items():
            if tensor is not None:
                own = _channels_last(tensor) if name in GRADIENTS else tensor
                self._held.append(own)
                setattr(self._layer, name, own.data_ptr())

    def gradients(self, wanted: Sequence[bool]) -> dict[str, Tensor]:
        """Room for the gradients of the inputs, by name; those of images only where wanted."""
        asked = dict(zip(_INPUTS, wanted, strict=True))
        asked["v"] = asked["h"] = asked["v"] or asked["h"]
        found: dict[str, Tensor] = {}
        for name, tensor in self.given.items():
            if name in _IMAGES:
                if asked[name] and name != "skip_sum":
                    found[name] = _places(tensor, tensor.shape[1])
            elif name.startswith("bias"):
                found[name] = tensor.new_empty(self.sizes["batch"], *tensor.shape[1:])
            else:
                found[name] = torch.empty_like(tensor)
        self.point(sums=self.given["v"].new_empty(len(self._ranges) * self._sums))
        self.point(**{f"grad_{name}": tensor for name, tensor in found.items()})
        return found

    def run(self, name: str) -> None:
        """Let the threads go through their images."""
        kernel: Callable[..., None] = getattr(self.library, f"layer_{name}")
        in_threads(lambda *span: kernel(ctypes.byref(self._layer), *span), self._ranges)

    def finish(self) -> None:
        """Add up what the threads found."""
        self.library.layer_finish(ctypes.byref(self._layer))
