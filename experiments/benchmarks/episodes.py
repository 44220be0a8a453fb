"""Episodes a second, against learn2learn's Taskset and torchmeta's BatchMetaDataLoader on the same images in memory.

4 supports and 1 query of one class, in batches of 32. All three give images as they are trained on, float32 for the
peers and uint8 for ours. Images are Omniglot's where METADENSITY_DATA names its folder, the embedded glyphs elsewhere
and in quick runs.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks import training
from experiments.benchmarks.timing import Row, interleaved, row
from metadensity import Episode
from tasks import TASKS
from tasks.images import ImageTasks
from tasks.interop.imports import import_learn2learn, import_torchmeta

SHOTS, QUERIES, BATCH = 4, 1, 32
Batch = tuple[Tensor, Tensor]  # supports (tasks, SHOTS, ...) and queries (tasks, QUERIES, ...)


def rows(quick: bool) -> list[Row]:
    """Seconds an episode, ours and theirs, and the share of a training step that waits for its episode."""
    task = _task(quick)
    repeats, batches = (2, 2) if quick else (9, 20)
    rounds = {"ours": (_ours(task), 10 * batches)}  # ten times as many, so that a turn is no shorter than the peers'
    for name, make in (("learn2learn", _learn2learn), ("torchmeta", _torchmeta)):
        try:
            rounds[name] = (make(task), batches)
        except ImportError as problem:
            print(f"Without the row of {name}: {problem}")
    for name, (draw, _) in rounds.items():
        _require_episodes(name, draw(), task)
    seconds = interleaved({name: partial(_repeat, *given) for name, given in rounds.items()}, repeats)
    each = {name: seconds[name] / (count * BATCH) for name, (_, count) in rounds.items()}
    found = [
        row(
            f"episodes: {task.name}, {SHOTS} supports, {QUERIES} query, batches of {BATCH}; ours, {name}",
            each["ours"],
            each[name],
            bar=bar,
            episodes_per_s=1 / each["ours"],
            peer_episodes_per_s=1 / each[name],
        )
        for name, bar in (("learn2learn", 10), ("torchmeta", 50))
        if name in each
    ]
    for work in training.QUICK if quick else training.FULL[:1]:
        share = training.waiting_share(work, repeats)
        found.append({"name": f"episodes: share of a fast training step, {work.name}", "share": share})
    return found


def _repeat(draw: Callable[[], Batch], count: int) -> None:
    for _ in range(count):
        draw()


def _task(quick: bool) -> ImageTasks:
    name = "omniglot" if os.environ.get("METADENSITY_DATA") and not quick else "hershey"
    task = TASKS[name](split="train", size=8 if quick else 26)
    assert isinstance(task, ImageTasks)
    return task


def _ours(task: ImageTasks) -> Callable[[], Batch]:
    numbers = iter(range(10**12))

    def draw() -> Batch:
        episode: Episode = task.episode(next(numbers), tasks=BATCH, shots=SHOTS, queries=QUERIES)
        return episode.support.transpose(0, 1), episode.query.transpose(0, 1)

    return draw


def _learn2learn(task: ImageTasks) -> Callable[[], Batch]:
    """A Taskset of one way and five shots; a batch is 32 of its tasks stacked."""
    data = import_learn2learn().data
    random.seed(0)
    dataset = data.MetaDataset(_InMemory(task))
    transforms = [
        data.transforms.FusedNWaysKShots(dataset, n=1, k=SHOTS + QUERIES),
        data.transforms.LoadData(dataset),
    ]
    tasks = data.Taskset(dataset, task_transforms=transforms, num_tasks=-1)

    def draw() -> Batch:
        images = torch.stack([tasks.sample()[0] for _ in range(BATCH)])
        return images[:, :SHOTS], images[:, SHOTS:]

    return draw


class _InMemory(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """All images as float tensors with their labels."""

    def __init__(self, task: ImageTasks) -> None:
        self.images, self.labels = _images(task), task.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.labels[index]


def _torchmeta(task: ImageTasks) -> Callable[[], Batch]:
    """A BatchMetaDataLoader over tasks of one class, split into 4 training images and 1 to test on."""
    torchmeta = import_torchmeta()
    data = torchmeta.utils.data
    random.seed(0)
    images, starts, sizes = _images(task), task.class_start.tolist(), task.class_size.tolist()

    class OneClass(data.Dataset):  # type: ignore[name-defined]
        def __init__(self, index: int, target_transform: Any) -> None:
            super().__init__(index, target_transform=target_transform)
            self.first, self.size = starts[index], sizes[index]

        def __len__(self) -> int:
            return int(self.size)

        def __getitem__(self, example: int) -> tuple[Tensor, Any]:
            return images[self.first + example], self.target_transform(self.index)

    class AllClasses(data.ClassDataset):  # type: ignore[name-defined]
        num_classes = task.classes

        def __getitem__(self, index: int) -> Any:
            return OneClass(index, self.get_target_transform(index))

    meta = data.CombinationMetaDataset(
        AllClasses(meta_train=True),
        num_classes_per_task=1,
        target_transform=torchmeta.transforms.Categorical(1),
        dataset_transform=torchmeta.transforms.ClassSplitter(num_train_per_class=SHOTS, num_test_per_class=QUERIES),
    )
    loader = data.BatchMetaDataLoader(meta, batch_size=BATCH, shuffle=True, num_workers=0)

    def batches() -> Iterator[Batch]:
        while True:
            for batch in loader:
                if len(batch["test"][0]) == BATCH:  # the last one of a round may be smaller
                    yield batch["train"][0], batch["test"][0]

    endless = batches()
    return lambda: next(endless)


def _images(task: ImageTasks) -> Tensor:
    return task.pixels(torch.arange(task.images)).float()


def _require_episodes(name: str, batch: Batch, task: ImageTasks) -> None:
    """Each task holds images of one class: the support's and the query's are all found in one class of the task."""
    support, query = batch
    assert support.shape == (BATCH, SHOTS, *task.event_shape), f"{name} gives supports {tuple(support.shape)}"
    assert query.shape == (BATCH, QUERIES, *task.event_shape), f"{name} gives queries {tuple(query.shape)}"
    owners: dict[bytes, set[int]] = {}
    for pixels, label in zip(_images(task).to(torch.uint8), task.labels.tolist(), strict=True):
        owners.setdefault(pixels.numpy().tobytes(), set()).add(label)
    for images in torch.cat([support, query], 1).to(torch.uint8):
        classes = [owners.get(pixels.numpy().tobytes(), set()) for pixels in images]
        assert set.intersection(*classes), f"a task of {name} does not hold images of one class"
