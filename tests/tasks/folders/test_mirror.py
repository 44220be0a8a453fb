"""Mirrored pairs: what the support is, crops, splits, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import metadensity
from metadensity.models import MODELS
from tasks import SPLITS, DataError, StoredEpisodes
from tasks.folders.mirror import mirror
from tests.tasks.pictures import make_folder, make_products, save_noise


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    return make_folder(root, {"sea": 15, "wood": 15}, width=20, height=16)


@pytest.mark.parametrize("options", [{}, {"crops": 3}, {"grey": True, "levels": 8}, {"crops": 2, "resize": 12}])
def test_the_support_is_the_query_flipped(photographs: Path, options: dict[str, Any]) -> None:
    task = mirror("train", folder=photographs, size=8, **options)
    assert task.event_shape == (1 if "grey" in options else 3, 8, 8)
    assert task.class_size.tolist() == [2] * 24 * options.get("crops", 1)
    episode = task.episode(0, 64, 1, 1)
    assert torch.equal(episode.support, episode.query.flip(-1))
    assert not torch.equal(episode.support, episode.query)
    assert episode.query_ids is not None
    assert set((episode.query_ids % 2).unique().tolist()) == {0, 1}  # either of the two is the query
    pixels = task.pixels(range(task.images)).unflatten(0, (-1, 2))
    assert torch.equal(pixels[:, 0], pixels[:, 1].flip(-1))


def test_there_is_one_support(photographs: Path) -> None:
    task = mirror("test", folder=photographs, size=8)
    assert task.episode(0, 2, 0, 1).shots == 0
    with pytest.raises(ValueError, match=r"shots=2 and queries=1 need 3 different images, .* has 2. Ask for at most 2"):
        task.episode(0, 2, 2, 1)


def test_crops_are_windows_of_the_image(photographs: Path) -> None:
    task = mirror("train", folder=photographs, size=8, crops=3)
    for number in range(0, task.images, 2):
        name = task.class_names[number // 2].split("#")[0]
        with Image.open(photographs / name) as image:
            whole = np.asarray(image).transpose(2, 0, 1)
        windows = np.lib.stride_tricks.sliding_window_view(whole, (8, 8), (1, 2))
        same = (windows == task.pixels(number).numpy()[:, None, None]).all((0, 3, 4))
        assert same.sum() == 1
    assert len({pixels.numpy().tobytes() for pixels in task.pixels(range(task.images))}) == task.images


def test_crops_depend_on_the_name_alone(photographs: Path, tmp_path: Path) -> None:
    one = mirror("train", folder=photographs, size=8, crops=2)
    other = make_folder(tmp_path / "moved", {"sea": 15, "wood": 15}, width=20, height=16)
    assert mirror("train", folder=other, size=8, crops=2).fingerprint == one.fingerprint
    assert mirror("train", folder=photographs, size=8, crops=1).pixels(0).equal(one.pixels(0))  # fewer: the first


def test_the_split_is_by_file(photographs: Path) -> None:
    files = [
        {name.split("#")[0] for name in mirror(split, folder=photographs, size=8, crops=3).class_names}
        for split in SPLITS
    ]
    assert [len(part) for part in files] == [24, 3, 3]
    assert len(set.union(*files)) == 30


def test_published_parts_are_the_split(tmp_path: Path) -> None:
    """Of images, so classes may stand in two of them; what lies outside is left out."""
    make_folder(tmp_path / "x", {"train/a": 10, "test/a": 3, "iconic": 2})
    names = [mirror(split, folder=tmp_path / "x", size=8).class_names for split in SPLITS]
    assert [len(part) for part in names] == [9, 1, 3]
    assert names[2] == [f"test/a/{number:03}.png" for number in range(3)]
    make_products(tmp_path / "y", {"chair": dict.fromkeys(range(4), 5)})
    assert len(mirror("test", folder=tmp_path / "y", size=8).class_names) == 10


def test_a_flat_folder_will_do(tmp_path: Path) -> None:
    make_folder(tmp_path, {".": 6})
    assert mirror("train", folder=tmp_path, size=8).classes == 4


def test_episode_sets_hold(photographs: Path) -> None:
    task = mirror("test", folder=photographs, size=8)
    episodes = StoredEpisodes.build(task, [0, 1], 1)
    batches = list(episodes.episodes(task, 1, 4))
    assert sum(batch.queries * batch.tasks for batch in batches) == task.images
    assert all(torch.equal(batch.support, batch.query.flip(-1)) for batch in batches)


def test_evaluation_works_as_elsewhere(photographs: Path) -> None:
    """Colour through a model and evaluate: nats/dim, and bits/dim that are 8 for a uniform model."""
    task = mirror("test", folder=photographs, size=4)
    model = MODELS["independent"](task.event_shape, task.levels)
    episodes = StoredEpisodes.build(task, [1], 1)
    (row,) = metadensity.evaluate(model, episodes.episodes(task, 1, 4)).rows
    assert row.bits_per_dim == pytest.approx(8, abs=1e-5)
    assert row.nats_per_dim == pytest.approx(np.log(256), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"folder": None}, DataError, "the task mirror needs a folder of images: give folder="),
        ({"size": 30, "crops": 1}, DataError, r"has 20 x 16 pixels: no window of 30 x 30 fits.*resize=30 or more"),
        ({"size": 16, "crops": 6}, DataError, "has 5 windows of 16 x 16, not crops=6"),
        ({"crops": -1}, ValueError, "crops=-1; give at least 0"),
        ({"resize": 8}, ValueError, "resize=8 without crops"),
        ({"resize": 4, "crops": 1}, ValueError, "resize=4 leaves no window of size=8"),
    ],
)
def test_options_that_will_not_do(
    photographs: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mirror("train", **{"folder": photographs, "size": 8, **options})


def test_two_images_are_too_few(tmp_path: Path) -> None:
    for number in range(2):
        save_noise(tmp_path / f"{number}.png", number)
    with pytest.raises(DataError, match="each image a class, holds 2 classes; train and validation and test need"):
        mirror("train", folder=tmp_path, size=8)


@pytest.mark.parametrize("options", [{"size": 24, "crops": 2}, {"size": 48, "crops": 1}, {"size": 48, "grey": True}])
def test_grocery_photographs(data_root: Path, options: dict[str, Any]) -> None:
    tasks = [mirror(split, data_root, folder="grocery/grocery_64.zip", **options) for split in SPLITS]
    assert [task.classes // max(1, options.get("crops", 1)) for task in tasks] == [2640, 296, 2485]
    episode = tasks[2].episode(0, 16, 1, 1)
    assert torch.equal(episode.support, episode.query.flip(-1))
    assert episode.query.float().std() > 20
