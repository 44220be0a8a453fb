"""What every task keeps, for tasks of one's own: ``task_contracts(my_task)`` are parameters for pytest.

A check takes a function that builds the task, called with ``split=`` and ``seed=``, and raises AssertionError where the
task breaks what it stands for. What they ask is what makes numbers of different models comparable: episodes are a pure
function of seed and index, and no class and no image stands in two splits.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from metadensity import Episode
from tasks.base import TaskDistribution
from tasks.checks import SPLITS
from tasks.episodes.stored_episodes import StoredEpisodes
from tasks.images import ImageTasks

if not __debug__:
    raise RuntimeError("Checks are assertions, which python -O leaves out, so that all would pass. Start without -O.")

Build = Callable[..., TaskDistribution]


def episodes_are_pure(build: Build) -> None:
    """Built alike, tasks give equal episodes, in any order, whatever torch's random state; other seeds give others."""
    one, again = build(split="validation"), build(split="validation", seed=0)  # two objects, if builds are kept
    other = build(split="validation", seed=1)
    assert one.fingerprint == again.fingerprint == other.fingerprint, "the fingerprint is not that of the images alone"
    state = torch.get_rng_state()
    first, second = (one.episode(index, 4, 1, 1) for index in (5, 6))
    assert torch.equal(torch.get_rng_state(), state), "an episode moves torch's own random state"
    torch.manual_seed(1)
    later = [again.episode(index, 4, 1, 1) for index in (6, 5)][::-1]
    torch.set_rng_state(state)
    assert _same(first, later[0]), "the same seed and index give other episodes"
    assert _same(second, later[1]), "the same seed and index give other episodes"
    assert not _same(first, second), "another index gives the same episode"
    assert not _same(first, other.episode(5, 4, 1, 1)), "another seed gives the same episode"


def _same(one: Episode, other: Episode) -> bool:
    return torch.equal(one.support, other.support) and torch.equal(one.query, other.query)


def episodes_have_shapes(build: Build) -> None:
    """Supports and queries are integers in [0, levels), samples before tasks; with no support as well."""
    task = build(split="train")
    for shots, queries in ((0, 2), (1, 1)):
        episode = task.episode(0, 3, shots, queries)
        for pixels, count in ((episode.support, shots), (episode.query, queries)):
            assert pixels.shape == (count, 3, *task.event_shape), f"an episode has pixels {tuple(pixels.shape)}"
            assert not pixels.is_floating_point()
            assert not pixels.numel() or (int(pixels.min()) >= 0 and int(pixels.max()) < task.levels)


def shots_are_nested(build: Build) -> None:
    """Fewer supports are the first of more, and the queries are the same: numbers of shots can be compared in pairs."""
    task = build(split="test")
    most = min(2, int(task.class_size.min()) - 1) if isinstance(task, ImageTasks) else 2
    more, fewer = (task.episode(3, 4, shots, 1) for shots in (most, most - 1))
    assert torch.equal(more.query, fewer.query), "the number of shots changes the queries"
    assert torch.equal(more.support[: most - 1], fewer.support), "fewer supports are not the first of more"


def counts_are_refused(build: Build) -> None:
    """An index or a count out of range is refused by its name and value."""
    task = build(split="train")
    for arguments, named in (
        ((-1, 1, 1, 1), "index=-1"),
        ((0, 0, 1, 1), "tasks=0"),
        ((0, 1, -1, 1), "shots=-1"),
        ((0, 1, 1, 0), "queries=0"),
    ):
        assert named in _refusal(functools.partial(task.episode, *arguments)), f"{named} is not refused by its name"


def unknown_splits_are_refused(build: Build) -> None:
    """A split that there is not is refused, and those there are are named."""
    for split in ("valid", "", "train+train", "train+", "train,test", None):
        said = _refusal(functools.partial(build, split=split))
        assert "give one of train, validation, test, or several" in said, f"split={split!r} is not refused by name"


def _refusal(ask: Callable[[], object]) -> str:
    """What the ValueError says that ``ask`` raises; nothing where it raises none."""
    try:
        ask()
    except ValueError as error:
        return str(error)
    return ""


def it_is_what_it_says(build: Build, alike: float = 0.001, every_level: bool = True) -> None:
    """Of each split: shapes, levels, groups, a recipe that JSON holds; images differ, and none is of one level alone.

    alike: at most this part of the images looks like another. every_level: whether the lowest and the highest occur.
    """
    for split in SPLITS:
        task = _images(build(split=split))
        assert task.split == split
        pixels = task.pixels(range(task.images))
        assert pixels.dtype == torch.uint8
        assert pixels.shape == (task.images, *task.event_shape)
        if every_level:
            assert (int(pixels.min()), int(pixels.max())) == (0, task.levels - 1), "a level at the edge does not occur"
        flat = pixels.flatten(1)
        assert (flat.amax(1) > flat.amin(1)).all(), f"an image of {split} is of one level alone"
        assert len(_digests(pixels)) > (1 - alike) * task.images, f"too many images of {split} look like another"
        assert set(task.class_group.tolist()) == set(range(len(task.group_names)))
        assert json.loads(json.dumps(task.recipe)) == task.recipe


def splits_share_nothing(build: Build, common: int = 0, groups: bool = True) -> None:
    """No class, no group (``groups``) and at most ``common`` images stand in two splits."""
    parts = [_images(build(split=split)) for split in SPLITS]
    classes = [name for part in parts for name in part.class_names]
    assert len(set(classes)) == len(classes), "a class stands in two splits"
    held = [name for part in parts for name in part.group_names]
    assert not groups or len(set(held)) == len(held), "a group stands in two splits"
    images = [_digests(part.pixels(range(part.images))) for part in parts]
    found = len(images[0] & images[1]) + len(images[0] & images[2]) + len(images[1] & images[2])
    assert found <= common, f"{found} images stand in two splits"


def joined_splits_hold_both(build: Build) -> None:
    """ "train+validation" has the classes and images of both, in this order, however it is written."""
    train, validation = (_images(build(split=split)) for split in ("train", "validation"))
    both, swapped = (_images(build(split=split)) for split in ("train+validation", "validation+train"))
    assert both.split == swapped.split == "train+validation"
    assert both.class_names == train.class_names + validation.class_names
    assert both.images == train.images + validation.images
    assert swapped.fingerprint == both.fingerprint


def an_episode_set_covers_the_split(build: Build) -> None:
    """Every test image can be a query once, in a set that is kept in a file and known by its hash."""
    task = _images(build(split="test"))
    fewest = int(task.class_size.min())
    queries = min(5, fewest - 1)
    assert queries > 0, "a class of the test has one image alone: there is no support for it"
    episodes = StoredEpisodes.build(task, [1, min(8, fewest - queries)], queries)
    batches = list(episodes.episodes(task, episodes.max_shots, 64))
    assert sum(batch.queries * batch.tasks for batch in batches) == task.images
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.npz"
        episodes.save(path)
        assert StoredEpisodes.load(path, task).hash == episodes.hash


def _images(task: TaskDistribution) -> ImageTasks:
    assert isinstance(task, ImageTasks), f"{type(task).__name__} is not over a finite set of images"
    return task


def _digests(pixels: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in pixels}


OF_ALL: tuple[Callable[[Build], None], ...] = (
    episodes_are_pure,
    episodes_have_shapes,
    shots_are_nested,
    counts_are_refused,
    unknown_splits_are_refused,
)
OF_IMAGES: tuple[Callable[[Build], None], ...] = (
    it_is_what_it_says,
    splits_share_nothing,
    joined_splits_hold_both,
    an_episode_set_covers_the_split,
)


@dataclass(frozen=True)
class TaskContract:
    """One contract of one task; called, it raises AssertionError where the task breaks it."""

    check: Callable[[Build], None]
    build: Build

    def __str__(self) -> str:
        return self.check.__name__

    def __call__(self) -> None:
        self.check(self.build)


def task_contracts(build: Build) -> list[TaskContract]:
    """What a task has to keep, as pytest's parameters: each is called, and says by ``str`` what it is.

    build: the function that is listed in ``TASKS``. One over a finite set of images has contracts of its own.
    """
    kept = functools.cache(build)  # the checks ask for the same splits
    checks = (*OF_ALL, *OF_IMAGES) if isinstance(kept(split="train"), ImageTasks) else OF_ALL
    return [TaskContract(check, kept) for check in checks]
