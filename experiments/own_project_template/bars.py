"""A task of one's own: a function that returns a ``TaskDistribution``; ``ImageTasks`` is one over images in memory."""

from pathlib import Path

import numpy as np

from tasks.checks import split_parts
from tasks.images import ImageTasks

ROWS = {"train": range(4), "validation": range(4, 6), "test": range(6, 8)}


def bars(split: str = "train", data_root: str | Path | None = None, seed: int = 0) -> ImageTasks:
    """Bars across an 8x8 image, 12 images of each of 8 rows, some pixels flipped; the splits have rows of their own."""
    parts = split_parts("bars", split)  # "train+validation" has both
    rows = [row for part in parts for row in ROWS[part]]
    images = np.random.default_rng(0).random((8, 12, 1, 8, 8)) < 0.1
    for row in rows:
        images[row, :, :, row] ^= True
    names = [f"row {row}" for row in rows]
    return ImageTasks(
        "bars",
        "+".join(parts),
        seed,
        images=images[rows].reshape(-1, 1, 8, 8).astype(np.uint8),
        labels=np.repeat(range(len(rows)), 12),
        class_names=names,
        group_names=names,
        class_group=range(len(rows)),
        event_shape=(1, 8, 8),
        levels=2,
        recipe={"task": "bars", "version": 1},
    )
