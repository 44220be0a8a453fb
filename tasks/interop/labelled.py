"""A task distribution as a labelled data set, as classification packages have them."""

from __future__ import annotations

import operator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metadensity.checks import require_count
from tasks.base import TaskDistribution
from tasks.images import ImageTasks

_BATCH = 64  # tasks of an episode that images are drawn in
_PATIENCE = 1000  # episodes without an image of a class that is still short of some


class LabelledImages(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Item i: uint8 pixels ``(C, *space)`` and the number of the class. by_class: the items of each class."""

    def __init__(self, task: ImageTasks) -> None:
        self.task = task
        self.labels = task.labels
        bounds = np.searchsorted(self.labels, np.arange(task.classes + 1))
        self.by_class: list[NDArray[np.int64]] = [np.arange(start, end) for start, end in pairwise(bounds)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        number = operator.index(index)
        if not -len(self) <= number < len(self):  # IndexError ends Python's loop over a data set
            raise IndexError(f"item {number} of {len(self)} images.")
        number %= len(self)
        return self.task.pixels(number), int(self.labels[number])


def labelled(task: TaskDistribution, images_per_class: int = 20) -> LabelledImages:
    """The images of a task distribution with their class numbers.

    A task without a finite set of images gives the first ``images_per_class`` of each class that its episodes 0, 1,
    2, ... hold. Raises ValueError where its episodes do not say their classes, or some class does not come.
    """
    return LabelledImages(task if isinstance(task, ImageTasks) else _drawn(task, images_per_class))


def _drawn(task: TaskDistribution, per_class: int) -> ImageTasks:
    per_class = require_count("images_per_class", per_class, 1)
    found: list[list[Tensor]] = [[] for _ in task.class_names]
    waited = index = 0
    while any(len(images) < per_class for images in found):
        episode = task.episode(index, _BATCH, shots=0, queries=1)
        if episode.class_ids is None:
            raise ValueError(f"the episodes of {task.name} do not say which class a task is, so there are no labels.")
        waited += 1
        for number, image in zip(episode.class_ids.tolist(), episode.query[0], strict=True):
            if len(found[number]) < per_class:
                found[number].append(image)
                waited = 0
        if waited > _PATIENCE:
            short = next(n for n, images in zip(task.class_names, found, strict=True) if len(images) < per_class)
            raise ValueError(f"{_PATIENCE} episodes of {task.name} held no image of class {short!r}.")
        index += 1
    return ImageTasks(
        task.name,
        task.split,
        task.seed,
        images=torch.stack([image for images in found for image in images]).numpy().astype(np.uint8),
        labels=np.repeat(np.arange(len(found)), per_class),
        class_names=task.class_names,
        group_names=task.group_names,
        class_group=task.class_group,
        group_noun=task.group_noun,
        event_shape=task.event_shape,
        levels=task.levels,
        recipe={**task.recipe, "images_per_class": per_class},
        ink=task.ink,
    )


def integer_pixels(images: Tensor, levels: int) -> Tensor:
    """Pixels in ``[0, levels)`` as uint8, from such integers or from numbers in [0, 1] as ToTensor gives.

    Raises ValueError for integers out of range, and for fractions that are none of the ``levels`` values
    k / (levels - 1): how to round those moves every likelihood, so it is not done here.
    """
    levels = require_count("levels", levels, 2)
    if levels > 256:
        raise ValueError(f"levels={levels}; pixels are held as 8-bit integers, so give 2 to 256 levels.")
    pixels = images
    if images.is_floating_point():
        scaled = images * (levels - 1)
        pixels = scaled.round()
        off = ~((scaled - pixels).abs() < 1e-3)  # so that NaN is off as well
        if bool(off.any()):
            raise ValueError(
                f"{float(off.float().mean()):.1%} of the pixels are none of the {levels} values k / "
                f"{levels - 1} from 0 to 1. Binarise or quantise the images in a transform, or give their levels."
            )
    if pixels.numel() and not 0 <= int(pixels.min()) <= int(pixels.max()) < levels:
        raise ValueError(
            f"the images hold {pixels.min()} to {pixels.max()}; with levels={levels} give 0 to {levels - 1}."
        )
    return pixels.to(torch.uint8)
