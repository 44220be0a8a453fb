"""Omniglot: the protocols on the real archives, the cache, downloads, and what is refused."""

from __future__ import annotations

import logging
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tasks.omniglot.task
from tasks import SPLITS, TASKS, DataError
from tasks.omniglot.archives import BACKGROUND, EVALUATION, SIDE
from tasks.splits.committed import load_split


def test_a_missing_archive_names_path_and_remedy(tmp_path: Path) -> None:
    message = r"omniglot/images_background\.zip is missing\. Either put .*METADENSITY_DATA.*download=True"
    for options in ({}, {"download": False}):
        with pytest.raises(DataError, match=message):
            TASKS["omniglot"](split="test", data_root=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("named", "download", "allowed"),
    [
        *((True, None, False), (True, True, True), (False, None, True), (False, False, False)),
    ],
)
def test_downloads_go_to_the_users_cache_unless_asked_for(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, named: bool, download: bool | None, allowed: bool
) -> None:
    asked = []

    def no_fetch(path: Path, url: str, md5: str, *, allowed: bool) -> None:
        asked.append((path, url, md5, allowed))
        raise DataError("stop here")

    monkeypatch.setattr(tasks.omniglot.task, "fetch", no_fetch)
    monkeypatch.delenv("METADENSITY_DATA", raising=False)
    with pytest.raises(DataError, match="stop here"):
        TASKS["omniglot"](split="test", data_root=tmp_path if named else None, download=download)
    root = tmp_path if named else own_cache
    url = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/images_background.zip"
    assert asked == [(root / "omniglot" / "images_background.zip", url, "68d2efa1b9178cc56df9314c21c6e718", allowed)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, r"size=0; give at least 1"),
        ({"size": 106}, r"size=106; give 1 to 105, the size of the originals"),
        ({"shrink": "max"}, r"shrink='max'; give one of maxpool, nearest, area, bilinear"),
        ({"threshold": 0}, r"threshold=0; give the part"),
        ({"protocol": "lake"}, r"protocol='lake'; give one of paper, background, small1, small2, vinyals"),
        ({"protocol": "vinyals", "split_by": "class"}, r"split_by='class' with protocol='vinyals'; it redraws paper"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TASKS["omniglot"](split="test", data_root=tmp_path, **options)


def test_the_protocols_share_the_alphabets_out() -> None:
    content = load_split("omniglot")
    paper, background = ({split: set(content[name][split]) for split in SPLITS} for name in ("paper", "background"))
    assert paper["test"] == {"Tengwar", "Sylheti", "Tibetan", "Syriac_(Serto)", "ULOG"}
    assert [len(paper[split]) for split in SPLITS] == [42, 3, 5]
    assert [len(background[split]) for split in SPLITS] == [25, 5, 20]
    for protocol in (paper, background):
        assert len(set.union(*protocol.values())) == 50 == sum(map(len, protocol.values()))


# From here on, the real archives.


def test_the_papers_protocol_on_the_real_archives(data_root: Path) -> None:
    parts = {split: TASKS["omniglot"](split=split, data_root=data_root) for split in (*SPLITS, "train+validation")}
    assert [(task.classes, task.images) for task in parts.values()] == [
        *((1405, 28100), (74, 1480), (144, 2880), (1479, 29580))
    ]
    assert {task.event_shape for task in parts.values()} == {(1, 26, 26)}
    assert {int(size) for task in parts.values() for size in task.class_size} == {20}
    assert parts["test"].class_names[0] == "Sylheti/character01"
    # Ink is 1 and rare.
    assert 0.1 < parts["train"].pixels(range(2000)).float().mean() < 0.18


def test_the_background_protocol_on_the_real_archives(data_root: Path) -> None:
    options = {"data_root": data_root, "protocol": "background"}
    assert TASKS["omniglot"](split="train+validation", **options).classes == 964
    assert TASKS["omniglot"](split="test", **options).classes == 659
    assert len(TASKS["omniglot"](split="test", **options).group_names) == 20


@pytest.mark.parametrize("number", [1, 2])
def test_a_small_set_is_what_its_archive_holds(number: int, data_root: Path) -> None:
    options: dict[str, Any] = {"data_root": data_root, "protocol": f"small{number}"}
    parts = {split: TASKS["omniglot"](split=split, **options) for split in SPLITS}
    with zipfile.ZipFile(data_root / "omniglot" / f"images_background_small{number}.zip") as archive:
        characters = {"/".join(name.split("/")[1:3]) for name in archive.namelist() if name.endswith(".png")}
    assert set(parts["train"].class_names) == characters
    assert (len(parts["train"].group_names), len(parts["test"].group_names), parts["test"].classes) == (5, 20, 659)
    both = load_split("omniglot")
    assert not set(parts["validation"].group_names) & {*both["small1"]["train"], *both["small2"]["train"]}


def test_the_split_of_vinyals_shares_one_alphabet(data_root: Path) -> None:
    options: dict[str, Any] = {"data_root": data_root, "protocol": "vinyals"}
    parts = {split: TASKS["omniglot"](split=split, **options) for split in SPLITS}
    assert [task.classes for task in parts.values()] == [1028, 172, 423]
    assert len({name for task in parts.values() for name in task.class_names}) == 1623
    shared = set(parts["train"].group_names) & set(parts["test"].group_names)
    assert shared == {"Gurmukhi"}
    assert sum(name.startswith("Gurmukhi/") for name in parts["test"].class_names) == 4


def test_an_image_of_the_test_equals_one_of_training(data_root: Path) -> None:
    """At 26x26 one, drawn by other hands; at 105x105 none."""
    for size, count in ((26, 1), (105, 0)):
        train, test = (TASKS["omniglot"](split=split, data_root=data_root, size=size) for split in ("train", "test"))
        seen = test.equal_to_one_of(train)
        assert (seen.shape, int(seen.sum())) == ((2880,), count)
        pixels = {row.numpy().tobytes() for row in train.pixels(range(train.images))}
        assert [row.numpy().tobytes() in pixels for row in test.pixels(range(test.images))] == seen.tolist()


def test_no_original_is_in_two_splits_and_one_pair_is_equal(data_root: Path) -> None:
    """Two people have drawn the first character of Braille, a single dot, with the same pixels."""
    parts = [TASKS["omniglot"](split=split, data_root=data_root, size=105) for split in ("train+validation", "test")]
    drawings = [[row.numpy().tobytes() for row in task.pixels(range(task.images))] for task in parts]
    images = [set(found) for found in drawings]
    assert not images[0] & images[1]
    assert [len(found) for found in drawings] == [29_580, 2880]
    assert [len(found) for found in images] == [29_579, 2880]
    (twice,) = [number for number, count in Counter(drawings[0]).items() if count > 1]
    pair = [number for number, drawing in enumerate(drawings[0]) if drawing == twice]
    assert {parts[0].class_names[number // 20] for number in pair} == {"Braille/character01"}


def test_it_is_the_published_data_pixel_for_pixel(data_root: Path) -> None:
    # The same data by another way: the bit-packed file beside the archives, where there is one.
    path = data_root / "omniglot" / "omniglot_105.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there; it is not one of the published files")
    with np.load(path) as stored:
        packed, alphabet, names = stored["packed"], stored["alphabet"], stored["alphabet_name"]
        character, number = stored["character"], stored["char_in_alphabet"]
    ours = TASKS["omniglot"](split="test", data_root=data_root)
    chosen = [
        np.flatnonzero((names[alphabet] == name.split("/")[0]) & (number[character] == int(name[-2:])))
        for name in ours.class_names
    ]
    images = np.unpackbits(packed[np.concatenate(chosen)], axis=2)[:, :, :SIDE]
    pooled = torch.nn.functional.max_pool2d(torch.from_numpy(images[:, None]).float(), 4).to(torch.uint8)
    assert torch.equal(pooled, ours.pixels(range(ours.images)))


def test_the_real_archives_load_quickly(data_root: Path, own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Processor time, so that a busy machine does not fail it: 9 s and 0.05 s on a busy 2020s core.
    start = time.process_time()
    with caplog.at_level(logging.WARNING):
        first = TASKS["omniglot"](split="train+validation", data_root=data_root)
    assert time.process_time() - start < 15
    # Whatever the packing, the pixels are the published ones.
    assert "results will differ" not in caplog.text
    start = time.process_time()
    again = TASKS["omniglot"](split="train+validation", data_root=data_root)
    assert time.process_time() - start < 1
    assert again.fingerprint == first.fingerprint
    assert len(list((own_cache / "cache").iterdir())) == 1


def test_recipes_give_other_pixels_and_say_so(data_root: Path) -> None:
    tasks_ = [
        TASKS["omniglot"](split="test", data_root=data_root, **options)
        for options in ({}, {"size": 28}, {"shrink": "area"}, {"shrink": "area", "threshold": 0.3})
    ]
    assert len({task.fingerprint for task in tasks_}) == 4
    assert [task.recipe["threshold"] for task in tasks_] == [None, None, 0.5, 0.3]
    assert tasks_[1].event_shape == (1, 28, 28)
    assert set(tasks_[0].recipe["archives_md5"]) == {BACKGROUND.file, EVALUATION.file}
