"""QuickDraw's files: lines of JSON, or the archives of sketch-rnn; a category a file."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadensity.files import ARCHIVE_ERRORS
from metadensity.progress import with_progress
from tasks.data.roots import DataError
from tasks.pens.drawings import Drawing

PARTS = ("train", "valid", "test")  # of sketch-rnn's archives; only the first has to be there
_NAME = re.compile(r"(?:full_simplified_|full_raw_|sketchrnn_)?(.*?)(?:\.full)?")
# What makes the arrays in an archive of sketch-rnn when they are unpickled; before numpy 2 it was in numpy.core.
_OF_ARRAYS = {
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"): ("_codecs", "encode"),
}


def quickdraw_files(folder: Path) -> dict[str, Path]:
    """QuickDraw's files by category: cat is ``cat.ndjson``, ``full_simplified_cat.ndjson`` or ``sketchrnn_cat.npz``.

    Raises DataError where there is no such folder, or none in it, and where a category has two files: both may hold the
    same drawings, which would be support and query of each other.
    """
    if not folder.is_dir():
        raise DataError(f"folder={folder} is no folder. Give one that holds QuickDraw's .ndjson or .npz files.")
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix in _READ):
        match = _NAME.fullmatch(path.stem)
        assert match is not None
        found.setdefault(match[1], []).append(path)
    if not found:
        raise DataError(f"{folder} holds no .ndjson and no .npz files. Put QuickDraw's there, one a category.")
    if twice := [paths for paths in found.values() if len(paths) > 1]:
        named = "; ".join(", ".join(path.name for path in paths) for paths in twice)
        raise DataError(
            f"{folder} holds several files of one category, which may have the same drawings: {named}. Keep one of "
            "each."
        )
    return {category: paths[0] for category, paths in sorted(found.items())}


def quickdraw_drawings(files: dict[str, Path], drawings: int) -> dict[str, list[Drawing]]:
    """The first ``drawings`` of each category, each fitted into the unit square by its longer side, and centred.

    Raises DataError for a category without any.
    """
    found = {}
    for category, path in with_progress(list(files.items()), "reading categories, this once", "files"):
        every = _READ[path.suffix](path)
        found[category] = [_fitted(drawing) for _, drawing in zip(range(drawings), every, strict=False)]
        if not found[category]:
            raise DataError(f"{path}: no drawings in it. Replace it, or leave it out.")
    return found


def _fitted(strokes: Drawing) -> Drawing:
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(float((high - low).max()), 1e-9)
    return [(stroke - (low + high) / 2) / side + 0.5 for stroke in strokes]


def _ndjson(path: Path) -> Iterator[Drawing]:
    """The drawings of lines of JSON, ``{"drawing": [[[x, ...], [y, ...]], ...]}``, simplified or raw."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                held = json.loads(line)
            except ValueError as problem:
                raise DataError(f"{where} is no JSON ({problem}). Leave the line out.") from problem
            try:
                strokes = [np.array(stroke[:2], dtype=np.float64).T for stroke in held["drawing"]]
                fit = all(stroke.ndim == 2 and stroke.shape[1] == 2 and np.isfinite(stroke).all() for stroke in strokes)
            except (KeyError, TypeError, ValueError, IndexError):
                fit, strokes = False, []
            if not fit:
                raise DataError(
                    f'{where} is no drawing: give {{"drawing": [[[x, ...], [y, ...]], ...]}}, as many x as y in each '
                    "stroke. Leave the line out."
                )
            strokes = [stroke for stroke in strokes if len(stroke)]
            if not strokes:
                raise DataError(f"{where} is an empty drawing. Leave the line out.")
            yield strokes


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays and nothing else, so that no code of a file is run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _OF_ARRAYS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array")
        return super().find_class(*_OF_ARRAYS[module, name])


def _sketch_rnn(path: Path) -> Iterator[Drawing]:
    """The drawings of an archive of arrays ``(points, 3)``: dx, dy, and 1 where the pen is lifted after the point."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "train.npy" not in names:
                raise DataError(
                    f"{path} holds {', '.join(names) or 'nothing'}, and no array 'train': it is no archive of "
                    "sketch-rnn. Replace it."
                )
            parts = {part: _objects(archive.read(f"{part}.npy")) for part in PARTS if f"{part}.npy" in names}
    except DataError:
        raise
    except (*ARCHIVE_ERRORS, pickle.UnpicklingError, AttributeError, ImportError, IndexError, TypeError) as problem:
        raise DataError(f"{path} is damaged ({problem}). Replace it.") from problem
    for part, drawings in parts.items():
        for number, moves in enumerate(drawings):
            where = f"{path}, {part}[{number}]"
            if not isinstance(moves, np.ndarray) or moves.dtype.kind not in "iuf" or moves.shape[1:] != (3,):
                raise DataError(f"{where} is no array (points, 3) of dx, dy and the pen. Leave it out.")
            if not len(moves):
                raise DataError(f"{where} is an empty drawing. Leave it out.")
            if not np.isfinite(moves).all() or not np.isin(moves[:, 2], (0, 1)).all():
                raise DataError(f"{where} holds moves that are not finite, or pens that are not 0 or 1. Leave it out.")
            points = moves[:, :2].astype(np.float64).cumsum(axis=0)
            lifted = moves[:-1, 2].nonzero()[0] + 1
            yield np.split(points, lifted)


def _objects(member: bytes) -> list[Any]:
    """The objects of a pickled array of them. ValueError for any other array."""
    file = io.BytesIO(member)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    dtype: np.dtype[Any] = read(file)[2]
    if dtype.hasobject:
        held: NDArray[Any] = _ArraysOnly(file, encoding="latin1").load()
        return list(held)
    return list(np.load(io.BytesIO(member), allow_pickle=False))


_READ: dict[str, Callable[[Path], Iterator[Drawing]]] = {".ndjson": _ndjson, ".npz": _sketch_rnn}
