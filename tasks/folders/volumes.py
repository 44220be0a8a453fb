"""Folders of volumes, NIfTI or NumPy, a class each: scans, segmentations, films."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from metadensity.checks import require_count
from metadensity.files import ARCHIVE_ERRORS
from metadensity.progress import with_progress
from tasks.checks import split_parts
from tasks.data.cache import sha256_of_json
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError, find_data_root
from tasks.folders.class_split import by_folder, chosen_split, merged_classes
from tasks.images import ImageTasks

SUFFIXES = (".nii", ".nii.gz", ".npy")
EXAMPLE = "folder='scans' (a path, or one relative to METADENSITY_DATA)"
_FLOAT32 = 2.0**-23  # what a slope or an intercept that is stored in single precision may be off by, relatively


def volumes(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    folder: str | os.PathLike[str] | None = None,
    size: Sequence[int] | None = None,
    levels: int = 16,
    exact: bool = False,
    low: float | None = None,
    high: float | None = None,
    min_volumes: int = 2,
    splits: str | os.PathLike[str] | None = None,
    ink: bool = False,
) -> ImageTasks:
    """Volumes by folder, ``(1, *space)`` with the three axes of the files in their order; all are held in memory.

    folder: of NIfTI files (.nii, .nii.gz; ``pip install 'metadensity[volumes]'``) and NumPy's .npy, each of three axes,
        in folders that are their classes; relative to the data root where it is not absolute. Top folders train, val
        and test are published parts, as in the task folder.
    size: places along each axis, which volumes are averaged to; None: all have one shape, and keep it.
    levels: 2 to 256. exact: volumes hold whole levels from 0 already, as segmentations do; anything else is refused.
    low, high: otherwise the values of the first and the last level, others evenly between them, and what lies beyond
        is clipped; None: the least and the greatest of all volumes.
    min_volumes: classes with fewer are left out. splits: as in the task folder.
    ink: whether the last level is drawn black on white paper.

    Raises ValueError for options out of range, DataError for files that are missing, damaged, of other shapes, or that
    hold what is no number; ImportError where the package that reads NIfTI is not installed.
    """
    parts = split_parts("volumes", split)
    levels, min_volumes = require_count("levels", levels, 2), require_count("min_volumes", min_volumes, 1)
    if levels > 256:
        raise ValueError(f"levels={levels}; voxels are held as 8-bit integers, so give 2 to 256.")
    space = None if size is None else _space(size)
    if exact and (space, low, high) != (None, None, None):
        raise ValueError("exact=True with size, low or high; levels that are taken as they are cannot be scaled.")
    for name, bound in (("low", low), ("high", high)):
        if bound is not None and not math.isfinite(bound):
            raise ValueError(f"{name}={bound}; give a number, or None for that of all volumes.")
    if low is not None and high is not None and low >= high:
        raise ValueError(f"low={low} and high={high}; low must be less.")
    files = _files_of(folder, data_root)
    where = str(files.path)
    found = by_folder(files, refuse=splits is None)
    classes = merged_classes(found)
    if beside := classes.pop("", []):
        if not classes:
            raise DataError(f"{where} holds its volumes in no folders; a class is a folder. Sort them into folders.")
        say_once(f"{where}: {len(beside):,} volumes are in no class's folder and are left out: {in_short(beside)}.")
    whole, chosen = chosen_split(found, classes, splits, min_volumes, where)
    names = [name for own in classes.values() for name in own]
    read = {name: read_volume(files.path / name) for name in with_progress(names, "reading volumes", "volumes")}
    read = read if space is None else {name: each.averaged(space) for name, each in read.items()}
    _require_one_shape(read, where)
    low = min(float(each.values.min()) for each in read.values()) if low is None else float(low)
    high = max(float(each.values.max()) for each in read.values()) if high is None else float(high)
    if not exact and low >= high:
        raise DataError(f"{where}: no value is above {low}, so all voxels would be of one level. Give low and high.")
    held = {name: each.levels(levels) if exact else each.scaled(low, high, levels) for name, each in read.items()}
    kept = [name for part in parts for name in chosen[part]]
    if not kept:
        raise DataError(f"{where}: no class of {split} has {min_volumes} volumes (min_volumes={min_volumes}).")
    images = np.stack([held[file] for name in kept for file in classes[name]])[:, None]
    groups = sorted({name.rpartition("/")[0] or name for name in kept})
    digest = hashlib.sha256()
    for file, volume in held.items():
        digest.update(f"{file} {volume.shape}\n".encode() + volume.tobytes())
    return ImageTasks(
        "volumes",
        "+".join(parts),
        seed,
        images=images,
        labels=np.repeat(np.arange(len(kept)), [len(classes[name]) for name in kept]),
        class_names=kept,
        group_names=groups,
        class_group=[groups.index(name.rpartition("/")[0] or name) for name in kept],
        event_shape=tuple(images.shape[1:]),
        group_noun="kind",
        levels=levels,
        ink=ink,
        recipe={
            "task": "volumes",
            "version": 1,
            "levels": levels,
            "exact": bool(exact),
            "range": None if exact else [low, high],
            "least": min_volumes,
            "ink": bool(ink),
            "images_sha256": digest.hexdigest(),
            "split_sha256": sha256_of_json(whole),
        },
    )


@dataclass(frozen=True)
class Volume:
    """Values ``(x, y, z)`` float64 of a file, and by how much each may be off a level that it stands for.

    Of what is stored with a slope, a whole level is the nearest stored number, so half a slope below 1, and what single
    precision leaves; of other files, nothing.
    """

    path: Path
    values: NDArray[np.float64]
    rounding: NDArray[np.float64]

    def averaged(self, space: tuple[int, int, int]) -> Volume:
        """Means over as equal parts as can be of each axis."""
        pooled = F.adaptive_avg_pool3d(torch.from_numpy(self.values)[None], space)[0].numpy()
        return Volume(self.path, pooled, np.zeros_like(pooled))

    def levels(self, count: int) -> NDArray[np.uint8]:
        """The whole numbers that the values are; DataError where one is none, or none from 0 to ``count - 1``."""
        near = np.rint(self.values)
        wrong = (np.abs(self.values - near) > self.rounding) | (near < 0) | (near >= count)
        if wrong.any():
            at = tuple(int(each[0]) for each in np.nonzero(wrong))
            raise DataError(
                f"{self.path}: {int(wrong.sum()):,} of {wrong.size:,} voxels are no level from 0 to {count - 1}, the "
                f"first of them {self.values[at]:g} at {at}. Give more levels, or exact=False to scale the values."
            )
        return near.astype(np.uint8)

    def scaled(self, low: float, high: float, count: int) -> NDArray[np.uint8]:
        """The nearest of ``count`` levels from ``low`` to ``high``."""
        return np.rint((self.values - low) * ((count - 1) / (high - low))).clip(0, count - 1).astype(np.uint8)


def read_volume(path: Path) -> Volume:
    """The values of a file of three axes; more are taken where they have one place.

    NIfTI's are the stored numbers times a slope plus an intercept, in single precision: nibabel 5.4.2 writes floats of
    0 and 1 into bytes as 0 and 255 with a slope of 0.003921569, after which no voxel is 1.

    Raises DataError for files that are damaged, hold other numbers or none, or have other axes; ImportError as
    ``volumes``.
    """
    values, rounding = _numpy(path) if path.suffix == ".npy" else _nifti(path)
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise DataError(f"{path}: {count:,} of {values.size:,} voxels are no finite numbers. Replace them.")
    space = list(values.shape)
    while len(space) > 3 and space[-1] == 1:
        space.pop()
    if len(space) != 3:
        more = "Write a file for each volume of it." if len(space) > 3 else "Images are for the task folder."
        raise DataError(f"{path} has {len(space)} axes, {tuple(space)}; a volume has three. {more}")
    if not values.size:
        raise DataError(f"{path} has no voxels: its shape is {tuple(space)}. Leave it out.")
    return Volume(path, values.reshape(space), rounding.reshape(space))


def _numpy(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        array = np.load(path, allow_pickle=False)
    except (*ARCHIVE_ERRORS, ValueError, EOFError, OSError) as problem:
        raise DataError(f"{path} is no array, or damaged ({problem}). Write it with numpy.save.") from problem
    values = _real(array, path).astype(np.float64)
    return values, np.zeros_like(values)


def _nifti(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        import nibabel
    except ImportError:
        raise ImportError(
            f"{path} is read by the package nibabel, which is not installed: pip install 'metadensity[volumes]'"
        ) from None
    try:
        proxy: Any = nibabel.load(path).dataobj  # type: ignore[attr-defined]
        stored, slope, intercept = _real(proxy.get_unscaled(), path), float(proxy.slope), float(proxy.inter)
    except DataError:
        raise
    except (*ARCHIVE_ERRORS, nibabel.filebasedimages.ImageFileError, ValueError, EOFError, OSError) as problem:
        raise DataError(f"{path} is no NIfTI file, or damaged ({problem}). Replace it.") from problem
    steps = stored.astype(np.float64) * slope
    if (slope, intercept) == (1, 0):
        return steps, np.zeros_like(steps)
    nearest = abs(slope) / 2 if abs(slope) < 1 and stored.dtype.kind in "biu" else 0.0
    return steps + intercept, nearest + (np.abs(steps) + abs(intercept)) * _FLOAT32


def _real(array: NDArray[Any], path: Path) -> NDArray[Any]:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path} holds {array.dtype}; a voxel is one real number. Convert it.")
    return array


def _space(size: Sequence[int]) -> tuple[int, int, int]:
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 3:
        raise ValueError(f"size={size!r}; give the places along each of three axes, such as (8, 12, 12), or None.")
    first, second, third = (require_count("size", each, 1) for each in size)
    return first, second, third


def _require_one_shape(read: dict[str, Volume], where: str) -> None:
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, each in read.items():
        by_shape.setdefault(each.values.shape, []).append(name)
    if len(by_shape) > 1:
        said = ", ".join(f"{shape} ({len(own):,}, {own[0]} among them)" for shape, own in sorted(by_shape.items()))
        raise DataError(f"{where} holds volumes of {len(by_shape)} shapes: {said}. Give size= to average them to one.")


@dataclass(frozen=True)
class VolumeFiles:
    """The volumes of a folder. images: their names below it, sorted."""

    path: Path
    images: list[str]


def _files_of(folder: str | os.PathLike[str] | None, data_root: str | os.PathLike[str] | None) -> VolumeFiles:
    if folder is None:
        raise DataError(f"the task volumes needs a folder of volumes: give {EXAMPLE}.")
    path = Path(folder).expanduser()
    if not path.is_absolute():
        path = path if path.exists() else find_data_root(data_root).path / path
    if not path.is_dir():
        raise DataError(f"there is no folder {path}. Give {EXAMPLE}.")
    every = [each.relative_to(path) for each in path.rglob("*") if each.name.endswith(SUFFIXES) and each.is_file()]
    names = sorted(each.as_posix() for each in every if not any(part.startswith(".") for part in each.parts))
    if not names:
        raise DataError(f"{path} holds no volumes: no file ends in {', '.join(SUFFIXES)}.")
    return VolumeFiles(path, names)
