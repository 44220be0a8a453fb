"""What a user gives as examples: a folder, a file, a list of files, arrays; each example with a name."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metadensity.files import ARCHIVE_ERRORS
from tasks.data.notices import in_short
from tasks.data.roots import DataError
from tasks.folders.image_files import Preparation, suffixes

Array = NDArray[Any]
Given = str | os.PathLike[str] | Array | Sequence[Any]
ARRAYS = (".npy", ".npz")
_AS_THEY_ARE = Preparation(1)  # of which only ``opened`` is used: 8 bits, colour, on white


def examples(given: Given, wanted: Sequence[str]) -> list[tuple[str, Path | Array | Image.Image]]:
    """Each example by its name: a file with one of the suffixes ``wanted``, or an array.

    given: a folder, whose files are taken by their names; one file, or a list of files, arrays or images; an array of
    several, the first dimension counting them; an ``.npy`` or ``.npz`` of such. Raises DataError where there is none,
    where a file is missing or of another kind, TypeError for what is none of these.
    """
    if isinstance(given, str | os.PathLike):
        path = Path(given).expanduser()
        return _in_folder(path, wanted) if path.is_dir() else _in_file(path, wanted)
    if isinstance(given, Image.Image):
        return [("drawing 0", given)]
    if (array := _array(given)) is not None:
        return _numbered(array)
    if not isinstance(given, Iterable):
        raise TypeError(f"support is {type(given).__name__}; give a folder, files, images or arrays.")
    found: list[tuple[str, Path | Array | Image.Image]] = []
    for number, item in enumerate(given):
        if isinstance(item, str | os.PathLike):
            found += _in_file(Path(item).expanduser(), wanted)
        elif isinstance(item, Image.Image):
            found.append((f"drawing {number}", item))
        elif (array := _array(item)) is not None:
            found.append((f"array {number}", array))
        else:
            raise TypeError(f"support[{number}] is {type(item).__name__}; give a file, an image or an array.")
    if not found:
        raise DataError("support holds no examples; give one at least.")
    return found


def image_of(example: Path | Array | Image.Image, name: str) -> Image.Image:
    """An example as an image of 8 bits in colour, on white where it is transparent.

    Arrays are ``(H, W)``, ``(H, W, 1, 3 or 4)`` or ``(1 or 3, H, W)``: whole numbers to 255 (or all 0 and 1), bool, or
    floats from 0 to 1. Raises DataError for a damaged file, ValueError for other arrays.
    """
    if isinstance(example, Path):
        try:
            return _AS_THEY_ARE.opened(example.read_bytes(), str(example))
        except OSError as problem:
            raise DataError(f"{example} cannot be read ({problem}).") from problem
    if isinstance(example, Image.Image):
        held = io.BytesIO()
        example.save(held, "TIFF" if example.mode == "F" else "PNG")
        return _AS_THEY_ARE.opened(held.getvalue(), name)
    return _AS_THEY_ARE.opened(_png(_eight_bits(_channels_last(example, name), name)), name)


def _array(value: Any) -> Array | None:
    """An array, or what can be looked at as one, such as a tensor; None for anything else."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):
        return np.asarray(value.detach().cpu())
    return None


def _numbered(array: Array) -> list[tuple[str, Path | Array | Image.Image]]:
    if array.ndim < 2:
        raise ValueError(f"support is an array of shape {array.shape}; give (examples, height, width) or alike.")
    return [(f"array {number}", part) for number, part in enumerate(array if array.ndim > 2 else array[None])]


def _in_folder(path: Path, wanted: Sequence[str]) -> list[tuple[str, Path | Array | Image.Image]]:
    there = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    found: list[tuple[str, Path | Array | Image.Image]]
    found = [(entry.name, entry) for entry in there if entry.is_file() and entry.suffix.lower() in wanted]
    if not found:
        inside = in_short([entry.name for entry in there], 5) or "nothing"
        more = " Its folders are classes: name one of them." if any(entry.is_dir() for entry in there) else ""
        raise DataError(f"{path} holds no files that end in {', '.join(wanted)}; it holds {inside}.{more}")
    return found


def _in_file(path: Path, wanted: Sequence[str]) -> list[tuple[str, Path | Array | Image.Image]]:
    if path.is_dir():
        return _in_folder(path, wanted)
    if not path.is_file():
        raise DataError(f"there is no {path}. Name a folder, a file, or a list of files that exist.")
    suffix = path.suffix.lower()
    if suffix in ARRAYS and set(wanted) & set(suffixes()):
        return _in_arrays(path)
    if suffix not in wanted:
        arrays = ARRAYS if set(wanted) & set(suffixes()) else ()
        raise DataError(f"{path} is of a kind that is not read here; give {', '.join((*wanted, *arrays))}.")
    return [(path.name, path)]


def _in_arrays(path: Path) -> list[tuple[str, Path | Array | Image.Image]]:
    """The examples in an ``.npy``, or in all arrays of an ``.npz``: one that is an image is one of them."""
    try:
        held = np.load(path, allow_pickle=False)
        arrays = {"array": held} if isinstance(held, np.ndarray) else {name: held[name] for name in held.files}
    except (*ARCHIVE_ERRORS, OSError) as problem:
        raise DataError(
            f"{path} is no file of arrays that can be read ({problem}). Write it with numpy.save."
        ) from problem
    if len(arrays) == 1:
        return _numbered(*arrays.values())
    images = {name: array for name, array in arrays.items() if array.ndim >= 2}
    if not images:
        raise DataError(f"{path} holds the arrays {in_short(list(arrays))}, and none has two dimensions or more.")
    if "images" in images:
        return _numbered(images["images"])
    return [(name, array) for name, array in images.items()]


def _channels_last(array: Array, name: str) -> Array:
    if array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        found = array
    elif array.ndim == 3 and array.shape[0] in (1, 3):
        found = np.moveaxis(array, 0, -1)
    elif array.ndim == 2:
        found = array[..., None]
    else:
        raise ValueError(f"{name} has shape {array.shape}; an image is (H, W), (H, W, 1, 3 or 4) or (1 or 3, H, W).")
    if not found.size:
        raise ValueError(f"{name} has shape {array.shape}, which holds no pixel.")
    return found


def _eight_bits(array: Array, name: str) -> NDArray[np.uint8]:
    kind, low, high = array.dtype.kind, array.min(), array.max()
    if kind == "b" or (kind in "iu" and 0 <= low <= high <= 1):
        return (array.astype(np.uint8) * 255).astype(np.uint8)
    if kind in "iu" and 0 <= low <= high <= 255:
        return array.astype(np.uint8)
    if kind == "f" and 0 <= low <= high <= 1:
        return np.rint(array * 255).astype(np.uint8)
    raise ValueError(
        f"{name} holds {array.dtype} from {low} to {high}; give whole numbers from 0 to 255, floats from 0 to 1, bool."
    )


def _png(pixels: NDArray[np.uint8]) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(held, "PNG")
    return held.getvalue()
