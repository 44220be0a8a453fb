"""The kernel of the cached sampler: a line of pixels at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.native.build import CSRC, Arguments, Kernel, fields
from metadensity.native.calls import in_threads, shares

PAD = 16  # PAD in the source: outputs of matrices are padded to a multiple of it
_IMAGES_A_THREAD = 4  # fewer are not worth a thread


class _Line(Arguments):
    """``Line`` in the source."""

    _fields_ = fields(
        "batch layers planes places reach channels levels features middle attention tasks entries space_dims",
        "taps starts inputs dilations slots base_places lines bases kernels residuals residual_biases skips skip_bias "
        "penult penult_bias hidden hidden_bias previous logits logits_bias query query_bias keys values score reads "
        "positions uniforms known pixels",
        temperature=ctypes.c_double,
    )


_number, _pointer = ctypes.c_int64, ctypes.POINTER(_Line)
KERNEL = Kernel(
    CSRC / "line_sampler.cpp",
    "Samplers",
    _Line,
    {f"line_{dtype}": ([_pointer, _number, _number], None) for dtype in ("float", "double")},
)
library = KERNEL.library


def padded(matrix: Tensor) -> Tensor:
    """``(..., n)`` with zeros up to a multiple of PAD, contiguous."""
    return F.pad(matrix, (0, -matrix.shape[-1] % PAD)).contiguous()


def padded_halves(matrix: Tensor) -> Tensor:
    """``(..., 2 * n)`` with each half padded."""
    return padded(matrix.unflatten(-1, (2, -1))).flatten(-2).contiguous()


class LineKernel:
    """Draws lines of ``batch`` images.

    sizes: those of ``_Line``, ``batch`` among them. tensors: its arrays of numbers, as the source lays them out.
    lists: its arrays of arrays, one a layer. counts: its arrays of whole numbers, one a layer.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        sizes: Mapping[str, int],
        tensors: Mapping[str, Tensor],
        lists: Mapping[str, Sequence[Tensor]],
        counts: Mapping[str, Sequence[int]],
    ) -> None:
        dtype = tensors["skips"].dtype
        name = "double" if dtype == torch.float64 else "float"
        self._run = getattr(library, f"line_{name}")
        self._line = _Line(**sizes)
        self._batch = sizes["batch"]
        self._shape = (sizes["batch"], sizes["channels"], sizes["places"])
        self._kept: list[Any] = [tensors, lists]  # what the pointers point to
        for field, tensor in tensors.items():
            setattr(self._line, field, tensor.data_ptr())
        for field, many in lists.items():
            self._point(field, many)
        for field, numbers in counts.items():
            self._kept.append((ctypes.c_int64 * len(numbers))(*numbers))
            setattr(self._line, field, ctypes.addressof(self._kept[-1]))
        self._ranges = shares(self._batch, _IMAGES_A_THREAD)

    def _point(self, field: str, tensors: Sequence[Tensor]) -> Any:
        pointers = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
        self._kept.append(pointers)
        setattr(self._line, field, ctypes.addressof(pointers))
        return pointers

    def draw(
        self, bases: Sequence[Tensor], positions: Tensor, uniforms: Tensor, known: Tensor | None, temperature: float
    ) -> Tensor:
        """The pixels of the next line, ``(batch, C, places)``.

        bases: for each layer what is added to its gates, ``(places or 1, batch, 2 * planes)``. positions:
        ``(space_dims, places)``. uniforms, known: ``(batch, C, places)``; known is -1 where a pixel is to be drawn.
        """
        line, kept = self._line, len(self._kept)
        held = [padded_halves(base) for base in bases]
        self._point("bases", held)
        counts = (ctypes.c_int64 * len(held))(*(len(base) for base in held))
        line.base_places = ctypes.addressof(counts)
        where, chances = positions.T.contiguous(), uniforms.float().contiguous()
        given = None if known is None else known.contiguous()
        pixels = torch.empty(self._shape, dtype=torch.int64)
        line.positions, line.uniforms, line.pixels = where.data_ptr(), chances.data_ptr(), pixels.data_ptr()
        line.known = None if given is None else given.data_ptr()
        line.temperature = temperature
        in_threads(lambda _, first, last: self._run(ctypes.byref(line), first, last), self._ranges)
        del self._kept[kept:]
        return pixels
