"""Emoji drawn by several designers, in colour: many classes with few images each, the shape of Online Products.

The archive ``emoji/emoji_32.npz`` under the data root holds ``image`` (n, 32, 32, 3) uint8 on white, ``label``,
``class_name``, ``class_codepoints``, ``class_subgroup`` and ``subgroup_name`` (Unicode's, from its emoji-test.txt).
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadensity.checks import require_count
from metadensity.files import ARCHIVE_ERRORS, Arrays
from tasks.checks import split_parts
from tasks.data.roots import DataError, find_data_root
from tasks.images import ImageTasks
from tasks.splits.committed import load_split

SIDE = 32
KEYS = ("image", "label", "class_name", "class_codepoints", "class_subgroup", "subgroup_name")


def emoji(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    size: int = SIDE,
    grey: bool = False,
    levels: int = 256,
) -> ImageTasks:
    """A class is one emoji, its images the styles it was drawn in (5 to 7): ``(3, size, size)``.

    split: "train" (78 of Unicode's subgroups), "validation" (10), "test" (10), or several joined by "+". It is by
        subgroup, since emoji of one are drawn alike; the subgroup is the group of a class.
    data_root: the folder that holds ``emoji/emoji_32.npz``.
    size: a divisor of 32; smaller images are means over squares of pixels. grey: one channel of luminance.
    levels: 256, or fewer, each standing for an equal part of the 256.

    Raises ValueError for options out of range, DataError where the archive is missing, damaged or another.
    """
    parts = split_parts("emoji", split)
    size = require_count("size", size, 1)
    if SIDE % size:
        raise ValueError(f"size={size}; give a divisor of {SIDE}.")
    if not 2 <= require_count("levels", levels, 2) <= 256:
        raise ValueError(f"levels={levels}; give 2 to 256.")
    content = load_split("emoji")
    held = _read(data_root, content["images_sha256"])
    subgroups = [str(name) for name in held["subgroup_name"]]
    groups = [name for part in parts for name in content[part]]
    of_class = [subgroups[number] for number in held["class_subgroup"]]
    chosen = [number for group in groups for number, name in enumerate(of_class) if name == group]
    rows = [np.flatnonzero(held["label"] == number) for number in chosen]
    return ImageTasks(
        "emoji",
        "+".join(parts),
        seed,
        images=_prepared(held["image"][np.concatenate(rows)], size, grey, levels),
        labels=np.repeat(np.arange(len(chosen)), [len(images) for images in rows]),
        class_names=[f"{held['class_name'][number]} ({held['class_codepoints'][number]})" for number in chosen],
        group_names=groups,
        class_group=[groups.index(of_class[number]) for number in chosen],
        event_shape=(1 if grey else 3, size, size),
        group_noun="subgroup",
        levels=levels,
        recipe={
            "task": "emoji",
            "version": 1,
            "images_sha256": content["images_sha256"],
            "size": size,
            "grey": bool(grey),
            "levels": int(levels),
        },
    )


def _prepared(images: NDArray[np.uint8], size: int, grey: bool, levels: int) -> NDArray[np.uint8]:
    """``(n, 32, 32, 3)`` to ``(n, C, size, size)`` in ``[0, levels)``."""
    side = SIDE // size
    x: NDArray[Any] = images
    if side > 1:
        x = x.reshape(len(x), size, side, size, side, 3).mean((2, 4), dtype=np.float32)
    if grey:  # the weights of ITU-R 601, as Pillow's
        x = (x.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    whole = np.rint(x).astype(np.uint16) * levels >> 8
    return np.ascontiguousarray(whole.astype(np.uint8).transpose(0, 3, 1, 2))


def _read(data_root: str | os.PathLike[str] | None, expected: str) -> Arrays:
    path = find_data_root(data_root).path / "emoji" / "emoji_32.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            held: Arrays = {key: stored[key] for key in KEYS}
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing. Put the archive there, or name the folder that holds emoji/emoji_32.npz in "
            "METADENSITY_DATA or data_root."
        ) from None
    except (*ARCHIVE_ERRORS, KeyError) as problem:
        raise DataError(f"{path} is damaged ({problem}). Replace it.") from problem
    found = images_sha256(held)
    if found != expected:
        raise DataError(f"{path} holds other images (checksum {found}, not {expected}) than the ones that were split.")
    return held


def images_sha256(held: Arrays) -> str:
    """SHA-256, in hex, over the images and their classes."""
    digest = hashlib.sha256(np.ascontiguousarray(held["image"]).tobytes())
    digest.update(held["label"].astype("<u2").tobytes() + held["class_subgroup"].astype("<u2").tobytes())
    return digest.hexdigest()
