"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels with 17 levels; small, real and not binary."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from tasks.checks import split_parts
from tasks.data.roots import DataError
from tasks.images import ImageTasks
from tasks.splits.committed import load_split


def digits(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> ImageTasks:
    """Digits as classes, ``(1, 8, 8)``, 17 levels, 174 to 183 images a class; each digit is its own group.

    split: "train" (0 to 5), "validation" (6, 7), "test" (8, 9), or several joined by "+".
    data_root: not used; the images come with scikit-learn.
    seed: fixes the episodes.

    Raises DataError where scikit-learn holds other images than the ones that were split.
    """
    from sklearn.datasets import load_digits

    parts = split_parts("digits", split)
    content = load_split("digits")
    chosen = [digit for part in parts for digit in content[part]]
    bunch = load_digits()
    images, target = np.ascontiguousarray(bunch.images.astype(np.uint8)), bunch.target
    found = hashlib.sha256(images.tobytes() + target.astype(np.uint8).tobytes()).hexdigest()
    if found != content["images_sha256"]:
        raise DataError(
            f"scikit-learn's digits have checksum {found}, not {content['images_sha256']}. Install a release of "
            "scikit-learn that holds the published images."
        )
    rows = np.concatenate([np.flatnonzero(target == digit) for digit in chosen])
    names = [str(digit) for digit in chosen]
    return ImageTasks(
        "digits",
        "+".join(parts),
        seed,
        images=images[rows, None],
        labels=np.searchsorted(chosen, target[rows]),
        class_names=names,
        group_names=names,
        class_group=range(len(names)),
        event_shape=(1, 8, 8),
        group_noun="digit",
        levels=17,
        recipe={"task": "digits", "version": 1, "images_sha256": found},
    )
