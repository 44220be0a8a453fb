"""learn2learn and torchmeta: their tasks as Episodes, our task distributions as their data sets.

They hold n-way classification tasks: images of several classes with labels. A density is of one class, so each class
of such a task becomes one of our tasks, and an n-way task an Episode of n tasks. Both packages are imported when a
function needs them (``imports``). Which tasks they draw follows their own random state: Python's ``random`` for
learn2learn and torchmeta's loaders, a data set's ``seed`` method for torchmeta's ``sample_task``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metadensity.checks import require_count
from metadensity.episode import Episode
from tasks.base import TaskDistribution
from tasks.interop.imports import import_learn2learn, import_torchmeta
from tasks.interop.labelled import LabelledImages, integer_pixels, labelled

ROLES = (("train", "test"), ("support", "query"))  # what torchmeta's ClassSplitter calls its two parts
META_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def to_learn2learn(task: TaskDistribution, images_per_class: int = 20) -> Any:
    """The images of a task distribution as a ``learn2learn.data.MetaDataset``, for its Tasksets and task transforms.

    An item is (uint8 pixels ``(C, *space)``, class number). images_per_class: of tasks that draw their images without
    end, how many of each class are drawn; others hold the images they have, in their order.
    """
    images = labelled(task, images_per_class)
    by_class = {number: ids.tolist() for number, ids in enumerate(images.by_class)}
    return import_learn2learn().data.MetaDataset(images, labels_to_indices=by_class)


def to_torchmeta(
    task: TaskDistribution,
    ways: int,
    shots: int,
    queries: int,
    *,
    categorical: bool = True,
    shuffle: bool = True,
    images_per_class: int = 20,
    **options: Any,
) -> Any:
    """A task distribution as a ``torchmeta.utils.data.CombinationMetaDataset`` of ``ways``-way tasks.

    Its tasks are split into "train" (``shots`` images a class) and "test" (``queries``), ready for BatchMetaDataLoader.
    categorical: labels 0 to ways - 1, drawn anew for each task; False: (class number, augmentation), which keeps the
    class. shuffle: whether the images of a class are shuffled before the split: by the hash of the task, so that a
    choice of classes has the same support images in every draw (200 of 200 tried, torchmeta 1.8.0), whatever the seed.
    options: of ``ClassDataset`` besides the split, such as class_augmentations (of those that take tensors).
    images_per_class: see ``to_learn2learn``.
    """
    torchmeta = import_torchmeta()
    images = labelled(task, images_per_class)
    split = META_SPLITS.get(task.split, "train")
    classes = _torchmeta_classes()(images, meta_split=split, **options)
    return torchmeta.utils.data.CombinationMetaDataset(
        classes,
        num_classes_per_task=ways,
        target_transform=torchmeta.transforms.Categorical(ways) if categorical else None,
        dataset_transform=torchmeta.transforms.ClassSplitter(
            shuffle=shuffle, num_train_per_class=shots, num_test_per_class=queries
        ),
    )


def episode_from_labelled(
    images: Tensor, labels: Tensor, shots: int, levels: int = 2, class_ids: bool = False
) -> Episode:
    """One labelled batch, such as an item of a learn2learn Taskset, as an Episode with a task for each class.

    images: ``(n, C, *space)``. labels: ``(n,)``, as many of each class. The first ``shots`` of a class are its support,
    the rest its queries; classes are in the order in which they come. class_ids: whether the labels name the classes
    beyond this batch (they do not after RemapLabels or Categorical), and become the episode's ``class_ids``.

    Raises ValueError where classes have unequal numbers of images, or none is left to query, and as ``integer_pixels``.
    """
    shots = require_count("shots", shots, 0)
    labels = torch.as_tensor(labels)
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(f"labels have shape {tuple(labels.shape)}; {len(images)} images need ({len(images)},).")
    classes = _in_order(labels)
    members = [(labels == label).nonzero()[:, 0] for label in classes]
    counts = sorted({len(found) for found in members})
    if len(counts) != 1 or counts[0] <= shots:
        raise ValueError(
            f"the classes have {' or '.join(map(str, counts))} images each; with shots={shots} they need one number of "
            f"at least {shots + 1}, as what is not support is query."
        )
    pixels = integer_pixels(images, levels)[torch.stack(members, dim=1)]
    ids = torch.tensor(classes, dtype=torch.int64) if class_ids else None
    return Episode(support=pixels[:shots], query=pixels[shots:], class_ids=ids)


def episodes_from_learn2learn(
    taskset: Iterable[Any], shots: int, levels: int = 2, tasks: int | None = None, class_ids: bool = False
) -> Iterator[Episode]:
    """The tasks of a learn2learn Taskset as Episodes, one for each n-way task; see ``episode_from_labelled``.

    tasks: how many; None: as many as the Taskset counts (one, where it draws without end).
    """
    source: Any = taskset
    for index in range(len(source) if tasks is None else require_count("tasks", tasks, 1)):
        images, labels = source[index % len(source)][:2]
        yield episode_from_labelled(images, labels, shots, levels, class_ids)


def episode_from_torchmeta(batch: Mapping[str, Any], levels: int = 2, class_ids: bool = False) -> Episode:
    """A batch of torchmeta's BatchMetaDataLoader as an Episode with a task for each class of each task of the batch.

    batch: "train" and "test", or "support" and "query", each (images ``(batch, n, C, *space)``, labels). Labels are a
    tensor ``(batch, n)`` or, without a Categorical, what torchmeta collates class names or (class, augmentation) to.
    class_ids: whether the labels name the classes beyond one task: whole numbers alone can become ``class_ids``.

    Raises ValueError where the parts are missing or hold other classes, and as ``integer_pixels``.
    """
    roles = next((pair for pair in ROLES if set(pair) <= set(batch)), None)
    if roles is None:
        raise ValueError(
            f"the batch holds {', '.join(map(repr, batch))}; give one with 'train' and 'test', or 'support' and "
            "'query': put a ClassSplitter into the data set's dataset_transform."
        )
    (support, support_labels), (query, query_labels) = (batch[role][:2] for role in roles)
    codes: dict[Any, int] = {}
    known, asked = _codes(support_labels, support.shape[:2], codes), _codes(query_labels, query.shape[:2], codes)
    columns: tuple[list[Tensor], list[Tensor]] = ([], [])
    classes: list[int] = []
    for number in range(len(support)):
        found = _in_order(known[number]) or _in_order(asked[number])  # no support: the classes of the queries
        if set(found) != set(_in_order(asked[number])):
            raise ValueError(f"task {number} of the batch has other classes in {roles[0]!r} than in {roles[1]!r}.")
        for column, images, labels in zip(columns, (support, query), (known, asked), strict=True):
            column.extend(images[number][labels[number] == label] for label in found)
        classes += found
    if any(len({len(images) for images in column}) > 1 for column in columns):
        raise ValueError("classes of the batch have unequal numbers of images; give each the same number of shots.")
    ids = None
    if class_ids:
        names = {code: _class_number(label) for label, code in codes.items()}
        ids = torch.tensor([names[code] for code in classes], dtype=torch.int64)
    stacked = [integer_pixels(torch.stack(column, dim=1), levels) for column in columns]
    return Episode(support=stacked[0], query=stacked[1], class_ids=ids)


def episodes_from_torchmeta(
    source: Any, tasks: int | None = None, levels: int = 2, class_ids: bool = False
) -> Iterator[Episode]:
    """Episodes of a torchmeta CombinationMetaDataset, one for each n-way task drawn by its ``sample_task``, or of a
    BatchMetaDataLoader, one a batch; see ``episode_from_torchmeta``.

    tasks: how many. A loader ends by itself with None; a data set has to be given a number, as its combinations are
    too many to count.
    """
    torchmeta = import_torchmeta()
    if isinstance(source, torchmeta.utils.data.CombinationMetaDataset):
        collate = torchmeta.utils.data.dataloader.BatchMetaCollate(torch.utils.data.default_collate)
        if tasks is None:
            raise ValueError("tasks=None; say how many tasks to draw of a CombinationMetaDataset.")
        batches: Iterable[Any] = (collate([source.sample_task()]) for _ in range(require_count("tasks", tasks, 1)))
    else:
        batches = source
    for number, batch in enumerate(batches):
        if tasks is not None and number >= tasks:
            return
        yield episode_from_torchmeta(batch, levels, class_ids)


def _in_order(labels: Tensor) -> list[int]:
    """The distinct labels in the order in which they come."""
    return list(dict.fromkeys(labels.tolist()))


def _codes(labels: Any, shape: Sequence[int], codes: dict[Any, int]) -> Tensor:
    """Labels ``(batch, n)`` as integers, equal where the labels are; ``codes`` collects what each stands for."""
    found = [[codes.setdefault(label, len(codes)) for label in line] for line in _table(labels, *shape)]
    return torch.tensor(found, dtype=torch.int64).reshape(*shape)


def _table(labels: Any, batch: int, count: int) -> list[list[Any]]:
    """Labels as torchmeta collates them, by task of the batch and image."""
    if isinstance(labels, Tensor):
        table: list[list[Any]] = labels.tolist()
        return table
    if len(labels) == count and all(isinstance(name, str) for names in labels for name in names):
        return [[labels[j][i] for j in range(count)] for i in range(batch)]  # names: by image, then by task
    parts = [_table(part, batch, count) for part in labels]  # such as class and augmentation
    return [list(zip(*(part[i] for part in parts), strict=True)) for i in range(batch)]


def _class_number(label: Any) -> int:
    """The class in a label. Raises ValueError where it holds no number that names one class."""
    number, *augmentation = label if isinstance(label, tuple) else (label,)
    if not isinstance(number, int) or any(augmentation):
        raise ValueError(f"class_ids=True, but label {label!r} is no class number; leave class_ids out.")
    return number


@functools.cache
def _torchmeta_classes() -> Any:
    """torchmeta's ClassDataset over ``LabelledImages``: a class here, as torchmeta is imported when it is needed."""
    data = import_torchmeta().utils.data

    class OneClass(data.Dataset):  # type: ignore[name-defined]
        def __init__(self, index: int, images: LabelledImages, ids: Any, transform: Any, target_transform: Any) -> None:
            super().__init__(index, transform=transform, target_transform=target_transform)
            self.images, self.ids = images, ids

        def __len__(self) -> int:
            return len(self.ids)

        def __getitem__(self, number: int) -> tuple[Any, Any]:
            pixels, label = self.images[int(self.ids[number])]
            image = pixels if self.transform is None else self.transform(pixels)
            return image, label if self.target_transform is None else self.target_transform(label)

    class Classes(data.ClassDataset):  # type: ignore[name-defined]
        def __init__(self, images: LabelledImages, **options: Any) -> None:
            super().__init__(**options)
            self.images = images

        @property
        def num_classes(self) -> int:
            return len(self.images.by_class)

        def __getitem__(self, index: int) -> Any:
            ids: np.ndarray[Any, Any] = self.images.by_class[index % self.num_classes]
            how = (self.get_transform(index), self.get_target_transform(index))
            return OneClass(index, self.images, ids, *how)

    return Classes
