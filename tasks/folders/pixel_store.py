"""Preprocessed images in a memory-mapped file, so that a data set may be larger than memory."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from metadensity.files import DamagedFileError, atomic_file, read_arrays, write_arrays
from metadensity.progress import with_progress
from tasks.data import roots
from tasks.data.cache import sha256_of_json
from tasks.data.roots import DataError
from tasks.folders.image_files import ImageFiles, Preparation

DIGEST = 16
_FAULT = 2 * 65536  # what page faults may map around an image: 64 KiB at either end
_log = logging.getLogger(__name__)


class MappedPixels:
    """The rows of a uint8 ``.npy`` file, read when they are asked for.

    Pages that were read belong to the operating system's cache; the mapping is dropped and made anew whenever some
    ``window`` bytes have been mapped, so that the process itself stays small however much it reads.
    """

    def __init__(self, path: Path, window: int = 64 * 2**20) -> None:
        self.path, self.window = path, window
        self._map()

    def _map(self) -> None:
        self._array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        self._mapped = 0

    def __reduce__(self) -> tuple[type[MappedPixels], tuple[Path, int]]:
        return type(self), (self.path, self.window)  # a memmap itself would be pickled with all it maps

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array, ``(images, C, *space)``."""
        return tuple(self._array.shape)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at ``rows``, any shape: uint8 ``(*rows.shape, C, *space)`` in memory."""
        taken = np.array(self._array[rows.reshape(-1)], dtype=np.uint8)
        self._mapped += len(taken) * _FAULT + taken.nbytes
        if self._mapped > self.window:
            self._map()
        return taken.reshape(*rows.shape, *self.shape[1:])


@dataclass(frozen=True, eq=False)
class PixelStore:
    """Prepared images of a set of files, in the order of the files and, within one, of its windows.

    pixels: ``(images, C, *space)``. digests: ``(images, 16)`` uint8, BLAKE2b of each image's pixels.
    """

    pixels: MappedPixels
    digests: NDArray[np.uint8]


def store_of(files: ImageFiles, names: list[str], how: Preparation) -> PixelStore:
    """The files ``names`` prepared, or what an earlier call with the same files and preparation wrote.

    The store lies in the user's own cache folder; one that is damaged is built again, with a warning. Raises DataError
    for a damaged image, or where the cache folder cannot be written.
    """
    recipe = {"files": files.signature, "names": sha256_of_json(names), "how": how.recipe()}
    stem = roots.user_cache() / "cache" / f"images-{sha256_of_json(recipe)[:16]}"
    shape = (len(names) * how.per_file, *how.event_shape)
    try:
        return open_store(stem, recipe, shape)
    except FileNotFoundError:
        pass
    except DamagedFileError as problem:
        _log.warning("%s It is only a cache: building it again.", problem)

    def prepared(name: str) -> NDArray[np.uint8]:
        try:
            return how.pixels(files.read(name), name)
        except DataError as problem:
            raise DataError(f"{files.path}: {problem}") from problem

    # Threads: Pillow decodes and resizes without holding the interpreter.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = _ordered(pool, prepared, names)
        shown = with_progress(found, f"reading images of {Path(files.path).name}", "images", total=len(names))
        return write_store(stem, recipe, shape, shown)


def _ordered(
    pool: ThreadPoolExecutor, prepare: Callable[[str], NDArray[np.uint8]], names: list[str], ahead: int = 256
) -> Iterable[NDArray[np.uint8]]:
    """``map`` of a pool, in order, that runs no more than ``ahead`` ahead of whoever reads."""
    for start in range(0, len(names), ahead):
        yield from pool.map(prepare, names[start : start + ahead])


def open_store(stem: Path, recipe: dict[str, Any], shape: tuple[int, ...]) -> PixelStore:
    """What ``write_store`` wrote. FileNotFoundError where there is none, DamagedFileError where it is another."""
    arrays, head = read_arrays(stem.with_suffix(".npz"))
    path = stem.with_suffix(".npy")
    try:
        pixels = MappedPixels(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as problem:  # numpy maps no file that is shorter than it says
        raise DamagedFileError(f"{path} is damaged ({problem}).") from problem
    if sha256_of_json(head) != sha256_of_json(recipe) or pixels.shape != shape:
        raise DamagedFileError(f"{path} was made by another recipe.")
    return PixelStore(pixels, arrays["digests"])


def write_store(
    stem: Path, recipe: dict[str, Any], shape: tuple[int, ...], parts: Iterable[NDArray[np.uint8]]
) -> PixelStore:
    """Write images, ``shape`` in all, a part ``(n, C, *space)`` at a time, atomically.

    Raises DataError where the folder of ``stem`` cannot be written, and whatever ``parts`` raise.
    """
    try:
        with atomic_file(stem.with_suffix(".npy")) as file:
            digests = _write_pixels(file, shape, parts)
        write_arrays(stem.with_suffix(".npz"), {"digests": digests}, recipe)
    except OSError as problem:
        raise DataError(
            f"the cache folder {stem.parent} cannot be written ({problem}). Make room there, or choose another with "
            "the environment variable XDG_CACHE_HOME."
        ) from problem
    return open_store(stem, recipe, shape)


def _write_pixels(file: BinaryIO, shape: tuple[int, ...], parts: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    head = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)
    digests: list[bytes] = []
    for part in parts:
        file.write(np.ascontiguousarray(part).tobytes())
        digests += [hashlib.blake2b(image.tobytes(), digest_size=DIGEST).digest() for image in part]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST)
