"""Published parts by whatever they are called, and splits of folders with small classes."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from tasks import SPLITS, DataError
from tasks.data.notices import SAID
from tasks.folders.class_split import part_called
from tasks.folders.folder import folder
from tasks.folders.mirror import mirror
from tests.tasks.pictures import make_folder


def classes(path: Path, **options: Any) -> dict[str, list[str]]:
    return {split: folder(split, folder=path, size=4, **options).class_names for split in SPLITS}


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is said in this test, as if nothing had been said before."""
    SAID.clear()
    caplog.set_level(logging.WARNING, "tasks")
    return caplog


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("Train", None, "Test"),
        ("TRAIN", "VAL", "TEST"),
        ("training", None, "testing"),
        ("train_images", "valid_images", "test_images"),
        ("Training Set", "Validation Set", "Test Set"),
        ("train2017", "val2017", "test2017"),
        ("train", "dev", "test"),
        ("data/Train", None, "data/Test"),
    ],
)
def test_published_parts_are_known_by_their_usual_names(
    tmp_path: Path, train: str, validation: str | None, test: str
) -> None:
    """Classes that were published to be tested on are never trained on."""
    sizes = {f"{train}/{name}": 2 for name in "abcd"} | {f"{test}/{name}": 2 for name in "efg"}
    sizes |= {} if validation is None else {f"{validation}/h": 2}
    split = classes(make_folder(tmp_path, sizes))
    assert split["test"] == list("efg")
    assert sorted(split["train"] + split["validation"]) == ["a", "b", "c", "d", *([] if validation is None else ["h"])]
    assert validation is None or split["validation"] == ["h"]


@pytest.mark.parametrize(
    ("tops", "near"),
    [
        (("Test", "learn"), "Test"),
        (("trainn", "testt"), "testt, trainn"),
        (("trainA", "testA"), "testA, trainA"),
        (("val", "test"), "test, val"),
        (("fit", "test", "more"), "test"),
    ],
)
def test_what_may_be_parts_is_refused(tmp_path: Path, tops: tuple[str, ...], near: str) -> None:
    root = make_folder(tmp_path / "x", {f"{top}/{name}{top}": 2 for top in tops for name in "ab"})
    message = rf"holds the folders .*: {near} look like published parts, but none is called train. .*splits="
    with pytest.raises(DataError, match=message):
        folder("train", folder=root, size=4)
    found = [f"{top}/{name}{top}" for top in tops for name in "ab"]
    content = {"train": found[:1], "validation": found[1:2], "test": found[2:]}
    (tmp_path / "mine.json").write_text(json.dumps(content))
    assert classes(root, splits=tmp_path / "mine.json") == content, "as the message says"


@pytest.mark.parametrize(
    "names",
    [
        ("train", "bus", "car", "bicycle"),  # a class of trains
        ("Train", "Bus", "Car"),
        ("test", "dog", "cat"),
        ("animals/dog", "animals/cat", "plants/rose"),
        ("rain/a", "snow/b", "fog/c"),
    ],
)
def test_classes_are_no_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    split = classes(make_folder(tmp_path, dict.fromkeys(names, 2)))
    assert sorted(name for part in split.values() for name in part) == sorted(names)


def test_parts_within_classes_are_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {f"{name}/{part}": 2 for name in "abc" for part in ("train", "test")})
    with pytest.raises(DataError, match=r"holds parts within its classes \(test, train\), so one class would"):
        folder("train", folder=root, size=4)


def test_names_of_parts() -> None:
    for name in ("train", "Train", "TRAINING", "train_set", "01-train", "Train Images", "train2014"):
        assert part_called(name) == "train", name
    for name in ("trainer", "brain", "rain", "train station", "", "2017", "training_test", "set"):
        assert part_called(name) is None, name


def test_what_lies_outside_of_the_parts_is_said(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    make_folder(tmp_path, {"train/a": 2, "train/b": 2, "val/c": 2, "test/d": 2, "iconic": 3, ".": 1})
    assert classes(tmp_path) == {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}
    assert "4 images lie outside of its parts test, train, val and are left out: 000.png, iconic." in warned.text


def test_parts_that_share_classes_are_said_to_be_no_split(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    make_folder(tmp_path, {**{f"train/{name}": 2 for name in "abc"}, **{f"test/{name}": 2 for name in "bcd"}})
    classes(tmp_path)
    assert "its parts test, train share 2 classes, so they are no split by class" in warned.text


def test_mirror_knows_the_same_parts(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"Training": 4, "Testing": 3})
    assert {name.split("/")[0] for name in mirror("test", folder=root, size=4).class_names} == {"Testing"}
    assert {name.split("/")[0] for name in mirror("train+validation", folder=root, size=4).class_names} == {"Training"}
    other = make_folder(tmp_path / "other", {"Test": 3, "fit": 4})
    with pytest.raises(DataError, match=r"fit: Test look like published parts, but none .* call them otherwise"):
        mirror("train", folder=other, size=4)


def test_small_classes_are_left_out_before_the_split(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    """Of five classes with images and any number without enough, each split has one."""
    small = {f"small {number:02}": 1 for number in range(30)}
    root = make_folder(tmp_path, {**dict.fromkeys("abcde", 4), **small})
    split = classes(root)
    assert sorted(name for part in split.values() for name in part) == list("abcde")
    assert all(split.values())
    assert "30 of 35 classes have fewer than 2 images (min_images=2) and are left out: small 00 (1)" in warned.text
    assert "small 19 (1) and 10 more." in warned.text
    assert warned.text.count("are left out") == 1, "said for each split"
    assert split == classes(make_folder(tmp_path.parent / "large", dict.fromkeys("abcde", 4)))
    assert folder("train", folder=root, size=4, min_images=4).episode(0, 4, 3, 1).shots == 3


def test_splits_of_earlier_versions_can_be_had(tmp_path: Path) -> None:
    """They were drawn from all classes, and small ones left out afterwards."""
    sizes = {f"class {number}": 3 + number % 4 for number in range(12)}
    root = make_folder(tmp_path, sizes)
    before, every = folder("train", folder=root, size=4, min_images=5, splits="unfiltered"), classes(root)
    assert before.class_names == [name for name in every["train"] if sizes[name] >= 5]
    assert before.recipe["split_sha256"] == folder("train", folder=root, size=4).recipe["split_sha256"]
    assert folder("train", folder=root, size=4, min_images=5).recipe["split_sha256"] != before.recipe["split_sha256"]


def test_messages_do_not_send_to_each_other(tmp_path: Path) -> None:
    """What one message advises is done, and works."""
    root = make_folder(tmp_path, {"a": 6, "b": 6, "c": 2, "d": 1})
    with pytest.raises(ValueError, match=r"but class 'd' of folder \(.*\) has 1.* or leave smaller .* min_images=4"):
        folder("train+validation+test", folder=root, size=4, min_images=1).episode(0, 1, 3, 1)
    with pytest.raises(DataError) as caught:
        folder("train", folder=root, size=4, min_images=4)
    text = str(caught.value)
    assert "holds 2 classes; train and validation and test need one each, 3 together." in text
    assert "Of 4 classes 2 have fewer than 4 images (min_images=4)." in text
    (advised,) = re.findall(r"or give min_images=(\d) and episodes of at most \1 images", text)
    assert folder("train", folder=root, size=4, min_images=int(advised)).episode(0, 4, int(advised) - 1, 1).shots == 1
