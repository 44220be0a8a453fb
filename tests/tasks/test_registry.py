"""What every listed task keeps to: a task inherits these tests by being listed."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tasks
from tasks import SPLITS, TASKS, ImageTasks, StoredEpisodes, TaskDistribution, UnknownTaskError
from tasks.data.roots import DataError
from tasks.splits.committed import SPLITS_FOLDER, load_split

from .pictures import make_folder

NO_TASKS = {"media", "base", "checks", "data", "episodes", "images", "interop", "own", "splits", "styles"}
HOUSES = {"folders": {"folder", "mirror"}, "strings": {"names", "text", "tunes"}}  # folders of several tasks
DRAWN = {"chains", "templates", "transduction"}  # drawn without end, from one prior: see the folders of these names
FINITE = sorted(set(TASKS) - DRAWN)
FILES = {"folder", "mirror"}  # over a folder that the user names: here over a generated one, split by rule
PUBLISHED = {"emoji", "omniglot", "speech", "text"}  # images that are not in the package
Build = Callable[..., ImageTasks]


@pytest.fixture(scope="module", params=FINITE)
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """``build(split)`` of one task, made once."""
    root = request.getfixturevalue("data_root") if request.param in PUBLISHED else None
    options: dict[str, Any] = {}
    if request.param in FILES:
        sizes = {f"class {number}": 10 + number % 3 for number in range(12)}
        options = {"folder": make_folder(tmp_path_factory.mktemp("images"), sizes), "size": 12}
    if request.param == "labelled":
        path = tmp_path_factory.mktemp("arrays") / "arrays.npz"
        images = np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8)
        images[0::2, 0, 0], images[1::2, 0, 0] = 0, 255
        np.savez(path, images=images, labels=np.arange(120) // 2 % 12)
        options = {"source": path}

    @cache
    def made(split: str, seed: int = 0) -> ImageTasks:
        return TASKS[request.param](split=split, data_root=root, seed=seed, **options)

    return made


def test_every_file_in_the_folder_is_listed() -> None:
    found = {module.name for module in pkgutil.iter_modules(tasks.__path__)} - NO_TASKS - HOUSES.keys()
    assert found | set().union(*HOUSES.values()) == set(TASKS), "list each task in tasks.TASKS"


def test_every_split_file_is_of_a_listed_task_and_undamaged() -> None:
    """A task whose splits are a rule, such as the rows of an image, needs none."""
    stored = {path.stem for path in SPLITS_FOLDER.glob("*.json")}
    assert (
        {"digits", "emoji", "hershey", "names", "omniglot", "pens", "speech", "tunes"} <= stored <= set(FINITE) - FILES
    )
    for name in stored:
        load_split(name)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(UnknownTaskError) as caught:
        TASKS["omniglott"]
    assert str(caught.value) == (
        f"there is no task 'omniglott'; give one of {', '.join(sorted(TASKS))}. Did you mean 'omniglot'?"
    )


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("split", ["valid", "", "train+train", "train+", "train,test", None])
def test_an_unknown_split_says_what_there_is(name: str, split: str) -> None:
    with pytest.raises(ValueError, match=rf"is not a split of {name}; give one of train, validation, test, or several"):
        TASKS[name](split=split)


@pytest.mark.parametrize("split", SPLITS)
def test_it_is_what_it_says(build: Build, split: str) -> None:
    task = build(split)
    assert isinstance(task, TaskDistribution)
    assert task.split == split
    assert TASKS[task.name]
    pixels = task.pixels(range(task.images))
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (task.images, *task.event_shape)
    if task.name not in ("names", "speech"):  # no one speaks at the edge of the range, nor spells with all letters
        assert int(pixels.max()) == task.levels - 1
        assert int(pixels.min()) == 0
    # No image is all of one value, and few come twice: in Omniglot, shrunk, 8 of 28,100 do (dots and bars).
    assert (pixels.flatten(1).amax(1) > pixels.flatten(1).amin(1)).all()
    # Of emoji, 72 of 11,426 do: designers share a drawing, or draw two emoji alike.
    alike = {"emoji": 0.01, "names": 0.25, "tunes": 0.15}.get(task.name, 0.001)  # Anna stands in many lists
    assert len({row.numpy().tobytes() for row in pixels}) > (1 - alike) * task.images
    assert set(task.class_group.tolist()) == set(range(len(task.group_names)))
    assert json.loads(json.dumps(task.recipe)) == task.recipe
    shown = f"(name='{task.name}', split='{split}', seed=0, event_shape={task.event_shape}, levels={task.levels})"
    assert repr(task) in {f"ImageTasks{shown}", f"StoredTasks{shown}"}


def test_no_class_and_no_image_is_in_two_splits(build: Build) -> None:
    parts = [build(split) for split in SPLITS]
    names = [name for part in parts for name in part.class_names]
    groups = [name for part in parts for name in part.group_names]
    assert len(set(names)) == len(names)
    assert len(set(groups)) == len(groups) or parts[0].name == "mirror"  # split by image, grouped by folder
    images = [{row.numpy().tobytes() for row in part.pixels(range(part.images))} for part in parts]
    common = len(images[0] & images[1]) + len(images[0] & images[2]) + len(images[1] & images[2])
    # Of Omniglot's drawings, shrunk, one bar of ULOG is that of another alphabet; at 105 x 105 none is.
    assert common == (parts[0].name == "omniglot")


def test_joined_splits_hold_both(build: Build) -> None:
    both = build("train+validation")
    assert both.split == "train+validation"
    assert both.class_names == build("train").class_names + build("validation").class_names
    assert both.images == build("train").images + build("validation").images
    swapped = build("validation+train")
    assert (swapped.split, swapped.fingerprint) == (both.split, both.fingerprint)


def test_the_same_arguments_give_the_same_images_and_episodes(build: Build) -> None:
    task, again, reseeded = build("validation"), build("validation", 0), build("validation", 1)
    assert task.fingerprint == again.fingerprint == reseeded.fingerprint
    one, other = task.episode(5, 4, 1, 1), reseeded.episode(5, 4, 1, 1)
    assert torch.equal(one.support, again.episode(5, 4, 1, 1).support)
    assert not torch.equal(one.support, other.support)


def test_an_episode_set_covers_the_split(build: Build, tmp_path: Path) -> None:
    task = build("test")
    fewest = int(task.class_size.min())
    queries = min(5, fewest - 1)
    episodes = StoredEpisodes.build(task, [1, min(8, fewest - queries)], queries)
    batches = list(episodes.episodes(task, episodes.max_shots, 64))
    assert sum(batch.queries * batch.tasks for batch in batches) == task.images
    episodes.save(tmp_path / "set.npz")
    assert StoredEpisodes.load(tmp_path / "set.npz", task).hash == episodes.hash


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_task_over_files_says_what_to_give(name: str) -> None:
    with pytest.raises(DataError, match=rf"the task {name} needs a folder of images: give folder="):
        TASKS[name]()
