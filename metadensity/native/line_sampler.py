"""The kernel of the cached sampler: a line of pixels at a time."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.native.build import CSRC, load

SOURCE = CSRC / "line_sampler.cpp"
PAD = 16  # WIDTH in the source: outputs of matrices are padded to a multiple of it
_IMAGES_A_THREAD = 4  # fewer are not worth a thread


class _Line(ctypes.Structure):
    """``Line`` in the source."""

    _sizes = "batch layers planes places reach channels levels features middle attention tasks entries dims"
    _pointers = (
        "taps starts inputs base_places lines bases kernels residuals residual_biases skips skip_bias penult "
        "penult_bias hidden hidden_bias previous logits logits_bias query query_bias keys values score reads positions "
        "scratch uniforms known pixels"
    )
    _fields_ = (
        *((name, ctypes.c_int64) for name in _sizes.split()),
        *((name, ctypes.c_void_p) for name in _pointers.split()),
        ("temperature", ctypes.c_double),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel of samplers, or None where it is switched off or cannot be built (which is logged, once)."""
    if (found := load(SOURCE, "Samplers")) is None:
        return None
    for dtype in ("float", "double"):
        getattr(found, f"line_{dtype}").argtypes = [ctypes.POINTER(_Line), ctypes.c_int64, ctypes.c_int64]
        getattr(found, f"line_{dtype}").restype = None
        getattr(found, f"scratch_{dtype}").argtypes = [ctypes.POINTER(_Line)]
        getattr(found, f"scratch_{dtype}").restype = ctypes.c_int64
    return found


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
        needed = getattr(library, f"scratch_{name}")(ctypes.byref(self._line)) * self._batch
        self._kept.append(torch.zeros(needed, dtype=dtype))
        self._line.scratch = self._kept[-1].data_ptr()
        threads = max(1, min(torch.get_num_threads(), self._batch // _IMAGES_A_THREAD))
        share = -(-self._batch // threads)
        self._ranges = [(start, min(start + share, self._batch)) for start in range(0, self._batch, share)]
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def _point(self, field: str, tensors: Sequence[Tensor]) -> Any:
        pointers = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
        self._kept.append(pointers)
        setattr(self._line, field, ctypes.addressof(pointers))
        return pointers

    def draw(
        self, bases: Sequence[Tensor], positions: Tensor, uniforms: Tensor, known: Tensor | None, temperature: float
    ) -> Tensor:
        """The pixels of the next line, ``(batch, C, places)``.

        bases: for each layer what is added to its gates, ``(places or 1, batch, 2 * planes)``. positions: ``(dims,
        places)``. uniforms, known: ``(batch, C, places)``; known is -1 where a pixel is to be drawn.
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
        others = [
            self._pool.submit(self._run, ctypes.byref(line), *span)
            for span in self._ranges[1:]
            if self._pool is not None
        ]
        self._run(ctypes.byref(line), *self._ranges[0])
        for other in others:
            other.result()
        del self._kept[kept:]
        return pixels
