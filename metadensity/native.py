"""Small native kernels, built by the C++ compiler of the machine when first needed; here that of the cached sampler.

One takes a few seconds to build and is kept in the user's cache folder, under a hash of its source and of what the
processor can do. Without a compiler, or with METADENSITY_NATIVE=0 in the environment, the same is computed in torch:
samplers draw the same pixels, layers (``nn/native_layer.py``) give the same but for rounding.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SOURCE = Path(__file__).with_name("native_line.cpp")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-std=c++17", "-shared", "-fPIC")
PAD = 16  # WIDTH in the source: outputs of matrices are padded to a multiple of it
_IMAGES_A_THREAD = 4  # fewer are not worth a thread
_log = logging.getLogger(__name__)


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


def load(source: Path, users: str) -> ctypes.CDLL | None:
    """The kernel of ``source``, or None where it is switched off or cannot be built: the log says so of ``users``."""
    if os.environ.get("METADENSITY_NATIVE") == "0":
        return None
    try:
        return ctypes.CDLL(str(build(_folder(), source)))
    except (OSError, subprocess.SubprocessError) as problem:
        output = getattr(problem, "stderr", None) or b""
        _log.info("%s run in torch alone, more slowly: %s %s", users, problem, output.decode(errors="replace"))
        return None


def build(folder: Path, source: Path = SOURCE) -> Path:
    """Compile the kernel of ``source`` into ``folder`` unless it lies there; returns its path.

    Raises OSError where there is no compiler or the folder cannot be written, SubprocessError where compiling fails.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        raise FileNotFoundError("there is no C++ compiler (c++, g++, clang++, or the one named by CXX).")
    command = [*compiler.split(), *FLAGS, str(source)]
    described = "\n".join([*command[:-1], platform.machine(), _processor()])
    text = b"".join(path.read_bytes() for path in [source, *sorted(source.parent.glob("native_*.h"))])
    digest = hashlib.sha256(described.encode() + text).hexdigest()
    target = folder / f"{source.stem.removeprefix('native_')}-{digest[:16]}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=folder)
        os.close(handle)
        try:  # to a temporary name, then renamed: builds at the same time do not meet, and none is left half done
            subprocess.run([*command, "-o", temporary], check=True, capture_output=True, timeout=300)
            os.replace(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return target


def _folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "metadensity" / "native"


def _processor() -> str:
    """What the processor can do, where the system says so: code for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


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
