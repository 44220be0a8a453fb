"""Folders of images: layouts, splits, what is prepared, what is refused, and memory."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.ingredients import build_task
from tasks import SPLITS, DataError, StoredEpisodes
from tasks.folders.folder import folder
from tasks.folders.image_files import ImageFiles, Preparation
from tasks.splits.committed import save_split
from tests.tasks.pictures import make_folder, make_products, save_noise, zipped

FLAT = {f"class {number}": 3 + number % 4 for number in range(12)}


def classes(path: Path, **options: Any) -> dict[str, list[str]]:
    return {split: folder(split, folder=path, size=4, **options).class_names for split in SPLITS}


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("flat"), FLAT)


def test_a_class_is_a_folder(flat: Path) -> None:
    task = folder("train", folder=flat, size=12)
    assert task.event_shape == (3, 12, 12)
    assert task.class_size.tolist() == [FLAT[name] for name in task.class_names]
    assert task.group_names == sorted(task.class_names)  # flat: each class is its own group
    for number in range(task.images):
        place = number - task.class_start[task.labels[number]]
        with Image.open(flat / task.class_names[task.labels[number]] / f"{place:03}.png") as image:
            expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
        assert torch.equal(task.pixels(number), expected)


def test_classes_of_unequal_size_make_episodes(flat: Path) -> None:
    task = folder("train", folder=flat, size=4)
    episode = task.episode(0, 8, 2, 1)
    assert episode.support.shape == (2, 8, 3, 4, 4)
    assert episode.query_ids is not None
    assert episode.support_ids is not None
    assert not torch.any(episode.query_ids == episode.support_ids)
    with pytest.raises(
        ValueError, match=r"need 4 different images, but class .* has 3.* or leave smaller .* min_images=4"
    ):
        task.episode(0, 1, 3, 1)
    assert folder("train", folder=flat, size=4, min_images=4).episode(0, 8, 3, 1).shots == 3  # as the message says


def test_small_classes_are_left_out_when_told(flat: Path) -> None:
    task = folder("train+validation+test", folder=flat, size=4, min_images=5)
    assert sorted(task.class_names) == sorted(name for name, size in FLAT.items() if size >= 5)
    with pytest.raises(DataError, match=r"no class has 9 images \(min_images=9\); the largest of 12 has 6"):
        folder("train", folder=flat, size=4, min_images=9)
    # As earlier versions called it.
    recorded: Any = build_task({"name": "folder", "folder": str(flat), "size": 4, "least": 5}, "train+validation+test")
    assert (recorded.class_names, recorded.fingerprint, recorded.recipe) == (
        task.class_names,
        task.fingerprint,
        task.recipe,
    )


def test_the_split_by_rule_is_a_function_of_the_names(flat: Path, tmp_path: Path) -> None:
    split = classes(flat)
    assert [len(split[part]) for part in SPLITS] == [10, 1, 1]
    assert sorted(name for names in split.values() for name in names) == sorted(FLAT)
    other = make_folder(tmp_path / "other", dict.fromkeys(reversed(FLAT), 2))
    assert classes(other) == split
    assert [len(names) for names in classes(make_folder(tmp_path / "three", dict.fromkeys("abc", 2))).values()] == [
        1
    ] * 3


@pytest.mark.parametrize("checksum", [False, True])
def test_a_split_from_a_file(flat: Path, tmp_path: Path, checksum: bool) -> None:
    content = {"train": ["class 1", "class 4"], "validation": ["class 2"], "test": ["class 0"]}
    path = tmp_path / "mine.json"
    if checksum:
        save_split("mine", content, tmp_path)
    else:
        path.write_text(json.dumps(content))
    assert classes(flat, splits=path) == content
    both = folder("train+test", folder=flat, size=4, splits=path)
    assert both.class_names == ["class 1", "class 4", "class 0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": ["class 1", "class 2"], "validation": ["class 2"], "test": []}', "names 'class 2' twice"),
        ('{"train": ["class 1"], "validation": ["lion"], "test": []}', "names 'lion', but .* has no such class"),
        ('{"train": ["class 1"], "test": []}', r"cannot be read .*it has to be JSON, \{\"train\""),
        ("[1]", "it has to be JSON"),
        ("no JSON", "it has to be JSON"),
        ('{"sha256": "0", "content": {"train": [], "validation": [], "test": []}}', "checksum does not match"),
        (None, "there is no split file .*by rule"),
    ],
)
def test_a_split_file_that_is_wrong(flat: Path, tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "mine.json").write_text(content)
    with pytest.raises(DataError, match=message):
        folder("train", folder=flat, size=4, splits=tmp_path / "mine.json")


def test_published_parts_with_classes_of_their_own_are_the_split(tmp_path: Path) -> None:
    sizes = {"train/a": 2, "train/b": 2, "val/c": 2, "test/d/e": 2, "iconic": 3}
    assert classes(make_folder(tmp_path, sizes)) == {"train": ["a", "b"], "validation": ["c"], "test": ["d/e"]}


def test_published_parts_that_share_classes_are_pooled(tmp_path: Path) -> None:
    """They were split by image; few-shot splits are by class."""
    sizes = {f"{part}/{name}": 2 for part in ("train", "test") for name in "abcd"}
    split = classes(make_folder(tmp_path, sizes))
    assert sorted(name for names in split.values() for name in names) == list("abcd")
    assert folder("test", folder=tmp_path, size=4).images == 4


def test_stanford_online_products(tmp_path: Path) -> None:
    kinds = {"chair": {product: 2 + product for product in range(6)}, "bicycle": {10: 4, 11: 5, 12: 6}}
    make_products(tmp_path, kinds)
    save_noise(tmp_path / "chair_final/unlisted.JPG", 5)
    split = classes(tmp_path)
    assert split["test"] == ["bicycle_final/11", "chair_final/1", "chair_final/3", "chair_final/5"]
    assert (len(split["train"]), len(split["validation"])) == (4, 1)
    test = folder("test", folder=tmp_path, size=4)
    assert test.class_size.tolist() == [5, 3, 5, 7]
    assert test.group_names == ["bicycle_final", "chair_final"]
    (tmp_path / "chair_final/1003_0.JPG").unlink()
    with pytest.raises(DataError, match=r"Ebay_test.txt, line \d+: there is no chair_final/1003_0.JPG. Unpack all"):
        folder("test", folder=tmp_path, size=4)
    (tmp_path / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n1 2 x.jpg\n")
    with pytest.raises(DataError, match=r"line 2: '1 2 x.jpg' is not 'image_id class_id super_class_id path'"):
        folder("test", folder=tmp_path, size=4)
    (tmp_path / "Ebay_test.txt").unlink()
    with pytest.raises(DataError, match=r"holds Ebay_train.txt but not Ebay_test.txt"):
        folder("test", folder=tmp_path, size=4)


def test_a_zip_is_read_in_place(flat: Path, tmp_path: Path) -> None:
    expected = folder("train", folder=flat, size=4)
    for top in ("", "wrapped"):
        task = folder("train", folder=zipped(flat, tmp_path / f"x{top}.zip", top), size=4)
        assert task.fingerprint == expected.fingerprint


def test_a_folder_relative_to_the_data_root(flat: Path) -> None:
    task = folder("train", data_root=flat.parent, folder=flat.name, size=4)
    assert task.fingerprint == folder("train", folder=flat, size=4).fingerprint


def test_prepared_once(flat: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folder("train", folder=flat, size=5)
    with monkeypatch.context() as patch:
        patch.setattr(Preparation, "pixels", None)  # prepared again, this would fail
        again = folder("train", folder=flat, size=5)
        assert folder("test", folder=flat, size=5).class_names
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.pixels(range(again.images)), first.pixels(range(first.images)))
    assert len(list((own_cache / "cache").glob("*.npy"))) == 1
    folder("train", folder=flat, size=6)
    assert len(list((own_cache / "cache").glob("*.npy"))) == 2


def test_a_changed_image_is_prepared_anew(tmp_path: Path, own_cache: Path) -> None:
    root = make_folder(tmp_path / "x", dict.fromkeys("abcd", 2))
    before = folder("train+test", folder=root, size=4)
    save_noise(root / before.class_names[0] / "000.png", 77, 13, 13)
    after = folder("train+test", folder=root, size=4)
    assert after.fingerprint != before.fingerprint
    assert not torch.equal(after.pixels(0), before.pixels(0))
    assert torch.equal(after.pixels(1), before.pixels(1))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("damage", ["short", "gone", "noise"])
def test_a_damaged_store_is_built_again(flat: Path, own_cache: Path, suffix: str, damage: str) -> None:
    expected = folder("train", folder=flat, size=4).fingerprint
    (path,) = (own_cache / "cache").glob(f"*{suffix}")
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "short" else b"\x00" * 300)
    again = folder("train", folder=flat, size=4)
    assert again.fingerprint == expected
    assert again.pixels(range(again.images)).float().std() > 10


def test_damaged_images_are_named(tmp_path: Path, own_cache: Path) -> None:
    root = make_folder(tmp_path / "x", dict.fromkeys("abcd", 2))
    victim = root / "b/001.png"
    whole = victim.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"GIF89a, or so it says", whole[:60] + b"\x00" * 40 + whole[100:]):
        victim.write_bytes(data)
        with pytest.raises(
            DataError, match=r"b/001.png is no image that can be read, or is damaged .*Replace or remove"
        ):
            folder("train", folder=root, size=4)
    assert not list((own_cache / "cache").glob("*")), "a half-written store was left behind"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "absent", "there is no folder or zip archive"),
        (lambda path: path, r"holds no images \(files that end in .bmp, .gif"),
        (lambda path: make_folder(path, {".": 3}), "holds its images in no folders"),
        (lambda path: make_folder(path, {"a": 3, "b": 3}), "holds 2 classes; train and validation and test need"),
        (lambda path: Path(__file__), "no zip archive that can be read"),
        (lambda path: None, r"the task folder needs a folder of images: give folder='products"),
    ],
)
def test_folders_that_will_not_do(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        folder("train", folder=make(tmp_path), size=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0; give at least 1"),
        ({"levels": 1}, "levels=1; give at least 2"),
        ({"levels": 257}, "levels=257; give 2 to 256"),
        ({"fit": "pad"}, "fit='pad'; give one of crop, stretch"),
        ({"min_images": 0}, "min_images=0; give at least 1"),
    ],
)
def test_options_out_of_range(flat: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        folder("train", folder=flat, **options)


def test_levels_and_grey() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = _png(Image.fromarray(np.stack([ramp] * 3, 2)))
    for levels in (2, 16, 100, 256):
        pixels = Preparation(16, grey=True, levels=levels).pixels(data, "ramp")
        assert pixels.shape == (1, 1, 16, 16)
        counts = np.bincount(pixels.ravel(), minlength=levels)
        assert len(counts) == levels
        assert counts.max() - counts.min() <= 1  # each level stands for an equal part
        assert (np.diff(pixels.ravel().astype(int)) >= 0).all()


def test_crop_keeps_the_middle_and_stretch_the_whole() -> None:
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 255
    data = _png(Image.fromarray(pixels))
    assert (Preparation(4).pixels(data, "x") == 255).all()
    stretched = Preparation(12, fit="stretch").pixels(data, "x")
    assert stretched[0, 0, 0, 0] == 0
    assert stretched[0, 0, 0, 6] == 255


def test_transparent_places_are_white() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255
    prepared = Preparation(4).pixels(_png(Image.fromarray(pixels)), "x")
    assert (prepared[..., :2, :] == 0).all()
    assert (prepared[..., 2:, :] == 255).all()


def test_it_travels_to_workers(flat: Path) -> None:
    """Pickled, it names its store and does not hold it."""
    task = folder("train", folder=flat, size=12)
    data = pickle.dumps(task)
    assert torch.equal(pickle.loads(data).pixels([0, 5]), task.pixels([0, 5]))
    assert len(pickle.dumps(task._store.pixels)) < 500


def test_episode_sets_hold(flat: Path) -> None:
    task = folder("train", folder=flat, size=4)
    episodes = StoredEpisodes.build(task, [2], 1)
    assert sum(batch.queries * batch.tasks for batch in episodes.episodes(task, 2, 8)) == task.images


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 1, ".trash": 1, "__MACOSX": 1})
    (tmp_path / "a" / ".x.png").touch()
    (tmp_path / "a" / "notes.txt").touch()
    assert ImageFiles(tmp_path).images == ["__MACOSX/000.png", "a/000.png"]
    assert ImageFiles(zipped(tmp_path, tmp_path.parent / "hidden.zip")).images == ["a/000.png"]


def test_grocery_photographs(data_root: Path) -> None:
    tasks = [folder(split, data_root, folder="grocery/grocery_64.zip", size=32) for split in SPLITS]
    assert sum(task.images for task in tasks) == 5421
    names = [name for task in tasks for name in task.class_names]
    assert len(names) == len(set(names))
    assert "Fruit/Apple/Royal-Gala" in names
    episode = tasks[0].episode(0, 4, 3, 1)
    assert episode.query.shape == (1, 4, 3, 32, 32)
    assert 40 < episode.query.float().mean() < 200


def _png(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{"size": 16}, {"size": 12}, {"size": 16, "grey": True, "levels": 2}], ids=str)
def test_images_that_training_has_are_found_in_a_test_of_files(tmp_path: Path, options: dict[str, Any]) -> None:
    """Pixels of a folder lie in a file, not in the task."""
    for place, name in enumerate(("train/a", "train/b", "val/c", "test/d", "test/e")):
        for number in range(4):
            save_noise(tmp_path / name / f"{number}.png", 10 * place + number, 16, 16)
    for number in (1, 3):
        copied = (tmp_path / "train" / "a" / f"{number}.png").read_bytes()
        (tmp_path / "test" / "e" / f"{number}.png").write_bytes(copied)
    train, test = (folder(split, folder=tmp_path, **options) for split in ("train", "test"))
    assert test.equal_to_one_of(train).tolist() == [False] * 5 + [True, False, True]
