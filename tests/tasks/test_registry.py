"""What every listed task keeps to: a task inherits these tests by being listed."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import tasks
from tasks import SPLITS, TASKS, ImageTasks, UnknownTaskError
from tasks.data.roots import DataError
from tasks.splits.committed import SPLITS_FOLDER, load_split
from tasks.testing import (
    OF_ALL,
    an_episode_set_covers_the_split,
    it_is_what_it_says,
    joined_splits_hold_both,
    splits_share_nothing,
)

from .pictures import make_folder

NO_TASKS = {"media", "base", "checks", "data", "episodes", "images", "interop", "own", "splits", "styles", "testing"}
HOUSES = {
    "folders": {"folder", "mirror", "volumes"},
    "strings": {"names", "text", "tunes"},
    "templates": {"moving_templates", "templates"},
}  # folders of several tasks
# Drawn without end, from one prior: see the folders of these names.
DRAWN = {"chains", "moving_templates", "templates", "transduction"}
FINITE = sorted(set(TASKS) - DRAWN)
FILES = {"folder", "mirror", "volumes"}  # over a folder that the user names: here over a generated one, split by rule
PUBLISHED = {"emoji", "omniglot", "speech", "text"}  # images that are not in the package
Build = Callable[..., ImageTasks]


@pytest.fixture(scope="module", params=FINITE)
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """``build(split)`` of one task, made once."""
    root = request.getfixturevalue("data_root") if request.param in PUBLISHED else None
    options: dict[str, Any] = {}
    if request.param == "films":
        options = {"drawings": 8, "size": 12, "frames": 2}  # as in the fast table of films
    if request.param in FILES:
        sizes = {f"class {number}": 10 + number % 3 for number in range(12)}
        options = {"folder": make_folder(tmp_path_factory.mktemp("images"), sizes), "size": 12}
    if request.param == "volumes":
        root, random = tmp_path_factory.mktemp("volumes"), np.random.default_rng(0)
        for number in range(12 * 10):
            (root / f"class {number // 10}").mkdir(exist_ok=True)
            np.save(root / f"class {number // 10}" / f"{number}.npy", random.random((2, 3, 4)))
        options = {"folder": root}
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


@pytest.mark.parametrize("check", OF_ALL, ids=lambda check: check.__name__)
def test_it_keeps_what_every_task_keeps(build: Build, check: Callable[[Build], None]) -> None:
    check(build)


def test_it_is_what_it_says(build: Build) -> None:
    for split in SPLITS:
        task = build(split=split)
        assert TASKS[task.name]
        shown = f"(name='{task.name}', split='{split}', seed=0, event_shape={task.event_shape}, levels={task.levels})"
        assert repr(task) in {f"ImageTasks{shown}", f"StoredTasks{shown}"}
    # In Omniglot, shrunk, 8 of 28,100 come twice (dots and bars); of emoji 72 of 11,426, as designers share a drawing
    # or draw two emoji alike; Anna stands in many lists. No one speaks at the edge of the range, nor spells with all
    # letters.
    alike = {"emoji": 0.01, "names": 0.25, "tunes": 0.15}.get(task.name, 0.001)
    it_is_what_it_says(build, alike, every_level=task.name not in ("names", "speech"))


def test_no_class_and_no_image_is_in_two_splits(build: Build) -> None:
    name = build(split="train").name  # mirror is split by image, and grouped by folder
    # Of Omniglot's drawings, shrunk, one bar of ULOG is that of another alphabet; at 105 x 105 none is.
    splits_share_nothing(build, common=int(name == "omniglot"), groups=name != "mirror")


def test_joined_splits_hold_both(build: Build) -> None:
    joined_splits_hold_both(build)


def test_an_episode_set_covers_the_split(build: Build) -> None:
    an_episode_set_covers_the_split(build)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_task_over_files_says_what_to_give(name: str) -> None:
    with pytest.raises(DataError, match=rf"the task {name} needs a folder of (images|volumes): give folder="):
        TASKS[name]()
