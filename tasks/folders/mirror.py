"""Mirroring: the support is the image, flipped left to right (Reed et al. 2018, section 4.1, "ImageNet flip").

A test of whether a model can copy: a query that is known from its support costs 0 nats at best.
"""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import numpy as np

from tasks.checks import SPLITS, split_parts
from tasks.data.cache import sha256_of_json
from tasks.folders.class_split import by_folder, listed
from tasks.folders.folder import files_of
from tasks.folders.image_files import Preparation
from tasks.folders.pixel_store import store_of
from tasks.folders.stored import StoredTasks
from tasks.splits.by_name import by_rule


def mirror(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    folder: str | os.PathLike[str] | None = None,
    size: int = 48,
    grey: bool = False,
    levels: int = 256,
    fit: str = "crop",
    crops: int = 0,
    resize: int | None = None,
    white: float | None = None,
    damaged: str = "refuse",
) -> StoredTasks:
    """One image and its mirror image are a class: ``(3, size, size)`` with 256 levels, or one channel with ``grey``.

    Either of the two may be the query, and the other is its support, so an episode has at most one support for its one
    query (or two queries and none).

    folder: any folder of images, or a zip archive read in place; relative to the data root where it is not absolute.
        The split is the published one (top folders train, val and test; the lists of Stanford Online Products) with
        a tenth of the training images for validation where none is published; otherwise a tenth of the images each
        for test and validation, by the SHA-256 of their paths. It is by file: all crops of one are in one split.
    size: the paper's is 48. grey, levels, fit, crops, resize, white: see ``image_files.Preparation``;
        with crops, so many windows of each image are a class each.
    damaged: "refuse" images that cannot be read, naming all of them, or "skip" them: the recipe then names them.

    A group is the folder that the images lie in. All images are prepared once, into the user's cache folder.
    Raises ValueError for options out of range, DataError where the images are missing or damaged.
    """
    parts = split_parts("mirror", split)
    how = Preparation(size, grey, levels, fit, crops, resize, white)
    files = files_of("mirror", folder, data_root)
    published = {
        part: sorted(name for images in classes.values() for name in images)
        for part, classes in (listed(files) or by_folder(files, flat=True)).items()
    }
    where = f"{files.path}, each image a class,"
    if not {"train", "test"} <= set(published):
        published = by_rule([name for names in published.values() for name in names], where)
    elif "validation" not in published:
        published |= by_rule(published["train"], where, SPLITS[:2])
    stored = [name for part in SPLITS for name in published[part]]
    store, row = store_of(files, stored, how, damaged), {name: number for number, name in enumerate(stored)}
    kept = [name for part in parts for name in published[part] if name not in store.damaged]
    folders = [PurePosixPath(name).parent.as_posix() for name in kept]
    groups = sorted(set(folders))
    each = how.per_file
    return StoredTasks(
        "mirror",
        "+".join(parts),
        seed,
        store=store,
        rows=[row[name] * each + number for name in kept for number in range(each)],
        labels=np.repeat(np.arange(len(kept) * each), 2),
        class_names=[f"{name}#{number}" if crops else name for name in kept for number in range(each)],
        group_names=groups,
        class_group=np.repeat([groups.index(name) for name in folders], each),
        event_shape=how.event_shape,
        group_noun="folder",
        levels=levels,
        recipe={
            "task": "mirror",
            "how": how.recipe(),
            "files_sha256": sha256_of_json(stored),
            "split_sha256": sha256_of_json(published),
            **store.left_out(),
        },
        mirrored=True,
    )
