"""Any folder of images whose classes are its folders: Stanford Online Products, an ImageFolder, your own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from metadensity.checks import require_count
from tasks.checks import split_parts
from tasks.data.cache import sha256_of_json
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError, find_data_root
from tasks.folders.class_split import by_folder, chosen_split, listed, merged_classes
from tasks.folders.image_files import ImageFiles, Preparation
from tasks.folders.pixel_store import store_of
from tasks.folders.stored import StoredTasks

EXAMPLE = "folder='products/Stanford_Online_Products' (a path, or one relative to METADENSITY_DATA)"


def folder(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    folder: str | os.PathLike[str] | None = None,
    size: int = 32,
    grey: bool = False,
    levels: int = 256,
    fit: str = "crop",
    min_images: int = 2,
    splits: str | os.PathLike[str] | None = None,
    white: float | None = None,
    damaged: str = "refuse",
) -> StoredTasks:
    """Images by folder, ``(3, size, size)`` with 256 levels, or ``(1, size, size)`` with ``grey``.

    folder: the folder, or a zip archive read in place; relative to the data root where it is not absolute.
        With the lists of Stanford Online Products (Ebay_train.txt, Ebay_test.txt) in it, a class is a product and its
        group the product's kind. Otherwise a class is a folder that holds images, and its group the folder above.
    splits: a JSON file ``{"train": [class, ...], "validation": [...], "test": [...]}``. None: the published parts
        (the lists, or top folders train, val and test) where they share no class, with a tenth of the training classes
        for validation where none is published; otherwise all classes together, a tenth each to test and validation,
        by the SHA-256 of their names. "unfiltered": so too, but drawn before small classes are left out.
    size, grey, levels, fit, white: how an image is prepared, see ``tasks.folders.image_files.Preparation``.
    min_images: classes with fewer images than this are left out. An episode needs shots + queries of them.
    damaged: "refuse" images that cannot be read, naming all of them, or "skip" them: the recipe then names them.

    All images are resized once, into the user's cache folder, and read from there when they are drawn.
    Raises ValueError for options out of range, DataError where the images are missing or damaged.
    """
    parts = split_parts("folder", split)
    how = Preparation(size, grey, levels, fit, white=white)
    min_images = require_count("min_images", min_images, 1)
    files = files_of("folder", folder, data_root)
    where = str(files.path)
    found = listed(files) or by_folder(files, refuse=splits is None)
    classes = merged_classes(found)
    if set(classes) == {""}:
        raise DataError(f"{where} holds its images in no folders; a class is a folder. Sort them into folders.")
    if beside := classes.pop("", []):
        say_once(f"{where}: {len(beside):,} images are in no class's folder and are left out: {in_short(beside)}.")
    whole, chosen = chosen_split(found, classes, splits, min_images, where)  # known before hours of preparation
    stored = [image for images in classes.values() for image in images]
    store, row = store_of(files, stored, how, damaged), {name: number for number, name in enumerate(stored)}
    if store.damaged:
        classes = {name: [image for image in images if image not in store.damaged] for name, images in classes.items()}
        whole, chosen = chosen_split(found, classes, splits, min_images, where)
    kept = [name for part in parts for name in chosen[part]]
    if not kept:
        sizes = [len(classes[name]) for part in parts for name in whole[part]]
        if not sizes:
            raise DataError(f"{where}: the split has no class for {split}. Give one that has, as a file: splits=PATH.")
        raise DataError(
            f"{where}: no class of {split} has {min_images} images (min_images={min_images}); the largest "
            f"of {len(sizes)} has {max(sizes)}. Add images, or give a smaller min_images."
        )
    groups = sorted({group_of(name) for name in kept})
    return StoredTasks(
        "folder",
        "+".join(parts),
        seed,
        store=store,
        rows=[row[image] for name in kept for image in classes[name]],
        labels=np.repeat(np.arange(len(kept)), [len(classes[name]) for name in kept]),
        class_names=kept,
        group_names=groups,
        class_group=[groups.index(group_of(name)) for name in kept],
        event_shape=how.event_shape,
        group_noun="kind",
        levels=levels,
        recipe={
            "task": "folder",
            "how": how.recipe(),
            "least": min_images,  # the name in files of earlier versions: equal tasks keep equal recipes
            "files_sha256": sha256_of_json(stored),
            "split_sha256": sha256_of_json(whole),
            **store.left_out(),
        },
    )


def files_of(task: str, folder: str | os.PathLike[str] | None, data_root: str | os.PathLike[str] | None) -> ImageFiles:
    """The files of ``folder``, relative to the data root where it is not absolute; DataError where there are none."""
    if folder is None:
        raise DataError(f"the task {task} needs a folder of images: give {EXAMPLE}.")
    path = Path(folder).expanduser()
    if not path.is_absolute():
        path = path if path.exists() else find_data_root(data_root).path / path
    return ImageFiles(path)


def group_of(name: str) -> str:
    """The folder above a class's; a class at the top is its own group."""
    above, _, _ = name.rpartition("/")
    return above or name
