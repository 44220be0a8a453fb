"""Preprocessed images in a memory-mapped file, so that a data set may be larger than memory."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from metadensity.files import Arrays, DamagedFileError, atomic_file, read_arrays, write_arrays
from metadensity.progress import with_progress
from tasks.data import roots
from tasks.data.cache import sha256_of_json
from tasks.data.notices import SHOWN, in_short, say_once
from tasks.data.roots import DataError
from tasks.folders.image_files import DAMAGED, ImageFiles, Preparation
from tasks.images import DIGEST, digest_of

READER = 2  # changes when the same file becomes other pixels, so that caches are built again
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
    damaged: by name, what was wrong with files that could not be prepared; their images are black and not to be used.
    brightest: the highest level of all.
    """

    pixels: MappedPixels
    digests: NDArray[np.uint8]
    damaged: Mapping[str, str] = field(default_factory=dict)
    brightest: int = 0

    def left_out(self) -> dict[str, list[str]]:
        """What a recipe says of damaged files: nothing where there are none."""
        return {"damaged_left_out": sorted(self.damaged)} if self.damaged else {}


def store_of(files: ImageFiles, names: list[str], how: Preparation, damaged: str = "refuse") -> PixelStore:
    """The files ``names`` prepared, or what an earlier call with the same files and preparation wrote.

    damaged: "refuse" files that cannot be prepared, or "skip" them, which is said: see ``PixelStore.damaged``.
    The store lies in the user's own cache folder; one that is damaged is built again, with a warning. Raises DataError
    that names all damaged images, or where the cache folder cannot be written, ValueError for another ``damaged``.
    """
    if damaged not in DAMAGED:
        raise ValueError(f"damaged={damaged!r}; give one of {', '.join(DAMAGED)}.")
    recipe = {"reader": READER, "files": files.signature, "names": sha256_of_json(names), "how": how.recipe()}
    stem = roots.user_cache() / "cache" / f"images-{sha256_of_json(recipe)[:16]}"
    shape = (len(names) * how.per_file, *how.event_shape)
    store = None
    try:
        store = open_store(stem, recipe, shape)
    except FileNotFoundError:
        pass
    except DamagedFileError as problem:
        _log.warning("%s It is only a cache: building it again.", problem)
    if store is None:
        store = _prepared(files, names, how, damaged, stem, recipe, shape)
    if store.damaged and damaged == "refuse":
        raise _refusal(files.path, store.damaged, len(names))
    if store.damaged:
        say_once(
            f"{files.path}: {len(store.damaged):,} of {len(names):,} images are left out, as they cannot be used "
            f"(damaged=skip): {in_short(sorted(store.damaged))}."
        )
    if store.brightest < how.levels / 8 and len(store.damaged) < len(names):
        say_once(
            f"{files.path}: no pixel of all images is brighter than {store.brightest} of {how.levels - 1}. Images of "
            "more than 8 bits that use a part of their range come out so dark; white= says which value is white."
        )
    return store


def _prepared(
    files: ImageFiles,
    names: list[str],
    how: Preparation,
    damaged: str,
    stem: Path,
    recipe: dict[str, Any],
    shape: tuple[int, ...],
) -> PixelStore:
    """Prepare all files and write them. Raises DataError for damaged ones unless they are to be skipped."""
    problems: dict[str, str] = {}
    blank = np.zeros((how.per_file, *how.event_shape), dtype=np.uint8)

    def prepare(name: str) -> NDArray[np.uint8] | DataError:
        try:
            return how.pixels(files.read(name), name)
        except DataError as problem:
            return problem

    def parts(pool: ThreadPoolExecutor) -> Iterator[NDArray[np.uint8]]:
        what = f"reading images of {Path(files.path).name}"
        found = with_progress(_ordered(pool, prepare, names), what, "images", total=len(names))
        for name, part in zip(names, found, strict=True):
            if isinstance(part, DataError):
                problems[name] = str(part)
            yield blank if isinstance(part, DataError) else part
        if problems and damaged == "refuse":  # only now, so that all are named
            raise _refusal(files.path, problems, len(names))

    # Threads: Pillow decodes and resizes without holding the interpreter.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return write_store(stem, recipe, shape, parts(pool), problems)


def _refusal(path: Path, problems: Mapping[str, str], images: int) -> DataError:
    """All images that cannot be used, by file, and what to do."""
    said = list(problems.values())
    remedy = "To leave what cannot be used out of the data, give damaged=skip."
    if len(said) == 1:
        return DataError(f"{path}: {said[0]} {remedy}")
    lines = "".join(f"\n  {text}" for text in said[:SHOWN])
    more = f"\n  and {len(said) - SHOWN:,} more: {in_short(list(problems)[SHOWN:], 1000)}" if len(said) > SHOWN else ""
    return DataError(f"{path}: {len(said):,} of {images:,} images cannot be used:{lines}{more}\n{remedy}")


def _ordered(
    pool: ThreadPoolExecutor,
    prepare: Callable[[str], NDArray[np.uint8] | DataError],
    names: list[str],
    ahead: int = 256,
) -> Iterator[NDArray[np.uint8] | DataError]:
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
    damaged = json.loads(arrays["damaged"].tobytes())
    return PixelStore(pixels, arrays["digests"], damaged, int(arrays["brightest"][0]))


def write_store(
    stem: Path,
    recipe: dict[str, Any],
    shape: tuple[int, ...],
    parts: Iterable[NDArray[np.uint8]],
    damaged: Mapping[str, str] | None = None,
) -> PixelStore:
    """Write images, ``shape`` in all, a part ``(n, C, *space)`` at a time, atomically.

    damaged: see ``PixelStore``; it may grow while ``parts`` are read. Raises DataError where the folder of ``stem``
    cannot be written, and whatever ``parts`` raise.
    """
    try:
        with atomic_file(stem.with_suffix(".npy")) as file:
            digests, brightest = _write_pixels(file, shape, parts)
        said = np.frombuffer(json.dumps(dict(damaged or {})).encode(), dtype=np.uint8)
        arrays: Arrays = {"digests": digests, "damaged": said, "brightest": np.array([brightest], dtype=np.int64)}
        write_arrays(stem.with_suffix(".npz"), arrays, recipe)
    except OSError as problem:
        raise DataError(
            f"the cache folder {stem.parent} cannot be written ({problem}). Make room there, or choose another with "
            "the environment variable XDG_CACHE_HOME."
        ) from problem
    return open_store(stem, recipe, shape)


def _write_pixels(
    file: BinaryIO, shape: tuple[int, ...], parts: Iterable[NDArray[np.uint8]]
) -> tuple[NDArray[np.uint8], int]:
    head = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)
    digests: list[bytes] = []
    brightest = 0
    for part in parts:
        file.write(np.ascontiguousarray(part).tobytes())
        digests += map(digest_of, part)
        brightest = max(brightest, int(part.max(initial=0)))
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST), brightest
