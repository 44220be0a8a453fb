"""Gated layers and multiplicative units over sequences, one after another, as a native kernel: float32 on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metadensity.native.buffer_pool import empty_from_pool
from metadensity.native.build import CSRC, Arguments, Kernel, fields
from metadensity.native.calls import in_threads, shares

_PLACES_A_THREAD = 512  # fewer are not worth a thread
WEIGHTS = ("bias", "conv", "from_attention", "out", "out_bias")
"""Of a layer: bias ``(tasks, parts * planes)``, conv ``(parts * planes, features, taps)``, others as ``LayerWeights``.

Gated layers have two parts. Multiplicative units have four, conv ``(4 * planes, taps * planes)``, tap after tap, and
neither out nor out_bias."""


class _Layer(Arguments):
    """``Layer`` in the source."""

    _fields_ = fields(
        "batch tasks places inputs planes skip reads taps dilation shift residual multiplicative threads amx",
        "conv from_attention out out_bias bias x attended skip_sum new_x skips saved grad_new_x grad_skips grad_x "
        "grad_attended grad_bias grad_conv grad_from_attention grad_out grad_out_bias packed sums",
    )


_number, _pointer = ctypes.c_int64, ctypes.POINTER(_Layer)
KERNEL = Kernel(
    CSRC / "sequence_layers.cpp",
    "Layers over sequences",
    _Layer,
    {
        "layer_amx": ([], _number),
        "layer_sizes": ([_pointer, ctypes.POINTER(_number)], None),
        "layer_pack": ([_pointer], None),
        "layers_forward": ([_pointer, _number, _number, _number, _number], None),
        "layers_backward": ([_pointer, _number, _number, _number, _number], None),
        "layer_finish": ([_pointer], None),
    },
)
library = KERNEL.library


def has_amx() -> bool:
    """Whether the kernel can multiply bfloat16 numbers in the processor's tiles."""
    found = library()
    return found is not None and bool(found.layer_amx())


@dataclass(frozen=True)
class Form:
    """What a layer is besides its weights: places between its taps, and whether it leaves out the current place, in
    which case it has no residual. multiplicative: a unit in place of a gated layer."""

    dilation: int
    excludes_current: bool = False
    multiplicative: bool = False

    @property
    def parts(self) -> int:
        """Pre-activations of each plane."""
        return 4 if self.multiplicative else 2


class Call:
    """The arguments of one call of the kernel, and what they point to.

    x: ``(batch, places, features)``, as are attended and skip_sum, with features of their own, which may be None.
    weights: those named by ``WEIGHTS`` of each layer, one layer after another. low: products of bfloat16 numbers.
    """

    def __init__(
        self,
        forms: Sequence[Form],
        low: bool,
        x: Tensor,
        attended: Tensor | None,
        skip_sum: Tensor | None,
        *weights: Tensor | None,
    ) -> None:
        found = library()
        assert found is not None
        self.library, self.count = found, len(forms)
        self.x = x.detach().contiguous()
        self.attended = None if attended is None else attended.detach().contiguous()
        self.skip_sum = None if skip_sum is None else skip_sum.detach().contiguous()
        self.given = [
            {
                name: tensor.detach().contiguous()
                for name, tensor in zip(WEIGHTS, weights[i * len(WEIGHTS) :], strict=False)
                if tensor is not None
            }
            for i in range(self.count)
        ]
        batch, places = x.shape[:2]
        self._ranges = shares(batch, max(1, _PLACES_A_THREAD // places))
        self._layers = (_Layer * self.count)()
        self._held: list[Tensor] = []
        self.sums: list[int] = []
        saved, packed = [], []
        for layer, form, own in zip(self._layers, forms, self.given, strict=True):
            planes = len(own["conv"]) // form.parts
            inputs = planes if form.multiplicative else own["conv"].shape[1]
            sizes = {
                "batch": batch,
                "tasks": len(own["bias"]),
                "places": places,
                "inputs": inputs,
                "planes": planes,
                "skip": len(own["out"]) - planes if "out" in own else 0,
                "reads": own["from_attention"].shape[1] if "from_attention" in own else 0,
                "taps": own["conv"][0].numel() // inputs,
                "dilation": form.dilation,
                "shift": form.excludes_current,
                "residual": not form.excludes_current,
                "multiplicative": form.multiplicative,
                "threads": len(self._ranges),
                "amx": low,
            }
            for name, size in sizes.items():
                setattr(layer, name, size)
            self._point(layer, **own)
            if "from_attention" in own:
                self._point(layer, attended=self.attended)
            needed = (ctypes.c_int64 * 3)()
            found.layer_sizes(ctypes.byref(layer), needed)
            packed.append(needed[0])
            self.sums.append(needed[1] * len(self._ranges))
            saved.append(needed[2] * batch)
        self._packed, self._saved = packed, saved

    def pack(self) -> list[Tensor]:
        """The weights as the kernel takes them."""
        packed = list(self.x.new_empty(sum(self._packed)).split(self._packed))
        self._each(packed=packed)
        for layer in self._layers:
            self.library.layer_pack(ctypes.byref(layer))
        return packed

    def forward(self, keep: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What the last layer gives, and the sum of the skip outputs, ``(batch, places, ...)`` each.

        keep: for ``backward``, with what the third output is: of each layer what it gave, what was saved on the way
        and its packed weights.
        """
        packed, last = self.pack(), self._layers[-1]
        batch, places, planes = last.batch, last.places, last.planes
        skips = empty_from_pool(batch, places, last.skip)
        count = self.count if keep else 1  # without a gradient all layers write to the same place
        new = [empty_from_pool(batch, places, planes) for _ in range(count)] * (self.count // count)
        saved = [empty_from_pool(size) for size in self._saved] if keep else []
        self._each(x=[self.x, *new[:-1]], new_x=new, skips=[skips] * self.count)
        self._each(skip_sum=[self.skip_sum, *[skips] * (self.count - 1)])
        self._each(saved=saved or [None] * self.count)
        self._run("layers_forward")
        return new[-1], skips, [*new[:-1], *saved, *packed] if keep else []

    def backward(
        self, kept: Sequence[Tensor], wanted: Sequence[bool], grad_x: Tensor | None, grad_skips: Tensor | None
    ) -> list[Tensor | None]:
        """The gradients of x, attended, skip_sum and the weights, from those of the outputs of ``forward``."""
        new, kept = kept[: self.count - 1], kept[self.count - 1 :]
        self._each(x=[self.x, *new], saved=kept[: self.count], packed=kept[self.count :])
        if grad_skips is not None:
            self._each(grad_skips=[grad_skips.contiguous()] * self.count)
        through = self.x.new_empty(*self.x.shape[:2], self._layers[-1].planes)
        if grad_x is not None:
            through.copy_(grad_x)
        passed: list[Tensor | None] = [through] * (self.count - 1)
        first = torch.empty_like(self.x) if wanted[0] else None
        self._each(grad_new_x=[*passed, None if grad_x is None else through], grad_x=[first, *passed])
        attended = None if self.attended is None or not wanted[1] else torch.zeros_like(self.attended)
        for layer, own in zip(self._layers, self.given, strict=True):
            if "from_attention" in own:
                self._point(layer, grad_attended=attended)
        found = [{name: torch.empty_like(tensor) for name, tensor in own.items()} for own in self.given]
        for own in found:
            own["bias"] = own["bias"].new_empty(len(self.x), own["bias"].shape[1])
        self._each(sums=self.x.new_zeros(sum(self.sums)).split(self.sums))
        for layer, own in zip(self._layers, found, strict=True):
            self._point(layer, **{f"grad_{name}": tensor for name, tensor in own.items()})
        self._run("layers_backward")
        for layer, own in zip(self._layers, found, strict=True):
            self.library.layer_finish(ctypes.byref(layer))
            own["bias"] = own["bias"].unflatten(0, (-1, layer.tasks)).sum(0)
        weights = [own.get(name) for own in found for name in WEIGHTS]
        return [first, attended, grad_skips if wanted[2] else None, *weights]

    def _point(self, layer: _Layer, **tensors: Tensor | None) -> None:
        for name, tensor in tensors.items():
            if tensor is not None:
                self._held.append(tensor)
                setattr(layer, name, tensor.data_ptr())

    def _each(self, **tensors: Sequence[Tensor | None]) -> None:
        """Let the layers see these, one each."""
        for name, each in tensors.items():
            for layer, tensor in zip(self._layers, each, strict=True):
                self._point(layer, **{name: tensor})

    def _run(self, name: str) -> None:
        """Let the threads go through their sequences."""
        kernel: Callable[..., None] = getattr(self.library, name)
        in_threads(lambda *span: kernel(self._layers, self.count, *span), self._ranges)
