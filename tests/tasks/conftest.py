"""Fixtures for the tests of the tasks floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks import ImageTasks


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of these tests' own, so that they neither read nor fill the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.data.roots.user_cache", lambda: folder)
        yield folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for one test."""
    folder = tmp_path / "own-cache"
    monkeypatch.setattr("tasks.data.roots.user_cache", lambda: folder)
    return folder


def make(sizes: list[int], *, seed: int = 0, levels: int = 2, name: str = "made") -> ImageTasks:
    """Random 3 x 5 images in classes of these sizes, two classes a group."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    pixels = np.random.default_rng(7).integers(0, levels, (len(labels), 1, 3, 5), dtype=np.uint8)
    return ImageTasks(
        name,
        "train",
        seed,
        images=pixels,
        labels=labels,
        class_names=[f"class {number}" for number in range(len(sizes))],
        group_names=[f"group {number}" for number in range((len(sizes) + 1) // 2)],
        class_group=np.arange(len(sizes)) // 2,
        event_shape=(1, 3, 5),
        levels=levels,
        recipe={"task": "made"},
    )


@pytest.fixture(scope="session")
def make_tasks() -> Callable[..., ImageTasks]:
    """``make_tasks(sizes, seed=0, levels=2)``: random images in classes of these sizes."""
    return make
