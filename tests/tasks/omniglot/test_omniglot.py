"""Omniglot: the real archives, and small made ones for what can be wrong with an archive."""

from __future__ import annotations

import io
import logging
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import tasks.omniglot.task
from tasks import SPLITS, TASKS, DataError
from tasks.omniglot.archives import BACKGROUND, EVALUATION, SIDE, Archive, ink_rows, ink_rows_by_pillow, read_archive
from tasks.splits.committed import load_split

SMALL = Archive("small.zip", "0" * 32, alphabets=2, characters=3, drawings=2)


def png(ink: NDArray[np.bool_], mode: str = "1") -> bytes:
    """Black ink on white, as the published files, or as RGB."""
    stream = io.BytesIO()
    Image.fromarray(~ink).convert(mode).save(stream, "png")
    return stream.getvalue()


def scribble(number: int) -> NDArray[np.bool_]:
    return np.random.default_rng(number).random((SIDE, SIDE)) < 0.1


def members() -> dict[str, bytes]:
    """Two alphabets, three characters, two drawings each; the folder entries and stray files of real archives."""
    names = [("Alpha", 1), ("Alpha", 2), ("Beta", 1)]
    found = {"images/": b"", "images/.DS_Store": b"x", "__MACOSX/images/Alpha/._character01": b"x"}
    for number, (alphabet, character) in enumerate(names):
        found[f"images/{alphabet}/character{character:02d}/"] = b""
        for drawing in (2, 1):
            name = f"images/{alphabet}/character{character:02d}/{number:04d}_{drawing:02d}.png"
            found[name] = png(scribble(10 * number + drawing))
    return found


def write(path: Path, content: dict[str, bytes], order: Callable[[list[str]], list[str]] = list) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in order(list(content)):
            archive.writestr(name, content[name])
    return path


def test_an_archive_is_read_in_order_whatever_the_order_within(tmp_path: Path) -> None:
    for order in (list, sorted, lambda names: names[::-1]):
        read = read_archive(write(tmp_path / "small.zip", members(), order), SMALL)
        assert read.names == ["Alpha/character01", "Alpha/character02", "Beta/character01"]
        ink = np.unpackbits(read.packed, axis=2)[:, :, :SIDE].astype(bool)
        assert [image.tolist() for image in ink] == [scribble(k).tolist() for k in (1, 2, 11, 12, 21, 22)]


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_the_fast_decoder_equals_pillow(mode: str) -> None:
    for number in range(5):
        content = png(scribble(number), mode)
        expected = np.packbits(scribble(number), axis=1).tobytes()
        assert ink_rows(content, "name") == ink_rows_by_pillow(content, "name") == expected


def test_images_of_another_size_or_of_grey_are_refused(tmp_path: Path) -> None:
    grey = Image.new("L", (SIDE, SIDE), 128)
    stream = io.BytesIO()
    grey.save(stream, "png")
    for content, message in ((png(np.zeros((28, 28), bool)), r"28 x 28 pixels, not 105"), (stream.getvalue(), "black")):
        changed = members()
        changed["images/Beta/character01/0002_01.png"] = content
        with pytest.raises(
            DataError, match=rf"small\.zip is damaged \(images/Beta/character01/0002_01\.png .*{message}"
        ):
            read_archive(write(tmp_path / "small.zip", changed), SMALL)


def test_a_copy_packed_anew_is_accepted_with_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "small.zip", members())
    read_archive(path, SMALL)
    assert "small.zip is not the published file (md5 " in caplog.text
    assert "accepted, as it holds 2 alphabets and 3 characters with 2 drawings each." in caplog.text
    caplog.clear()
    read_archive(path, replace(SMALL, md5=tasks.omniglot.task.md5_of(path)))
    assert not caplog.text


def test_other_pixels_are_accepted_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_archive(write(tmp_path / "small.zip", members()), replace(SMALL, pixels_sha256="0" * 64))
    assert "holds the right characters, but not the published pixels: results will differ" in caplog.text


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("images/Beta/", r"holds 1 alphabets and 2 characters; expected are 2 and 3, each with 2 drawings"),
        ("images/Alpha/character02/", r"holds 2 alphabets and 2 characters; expected are 2 and 3"),
        ("images/Beta/character01/0002_02", r"\(Beta/character01 has 1 drawings\); expected are 2 and 3"),
        ("images/", r"holds 0 alphabets and 0 characters; expected"),
    ],
)
def test_an_archive_with_other_counts_is_refused(tmp_path: Path, lost: str, message: str) -> None:
    kept = {name: content for name, content in members().items() if not name.startswith(lost)}
    with pytest.raises(DataError, match=rf"small\.zip .*{message}.*Delete it and download it again, from https://"):
        read_archive(write(tmp_path / "small.zip", kept), SMALL)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "small.zip", members())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    for content in (whole[: len(whole) // 2], whole[:-30], b"", b"<html>not found</html>", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"small\.zip is damaged \(.*\)\. Delete it and download it again, from"):
            read_archive(path, SMALL)
    # A member that is no image, though the archive itself is whole.
    with pytest.raises(DataError, match=r"small\.zip is damaged"):
        read_archive(write(path, {**members(), "images/Beta/character01/0002_01.png": b"x" * 100}), SMALL)


def test_a_missing_archive_names_path_and_remedy(tmp_path: Path) -> None:
    message = r"omniglot/images_background\.zip is missing\. Either put .*METADENSITY_DATA.*download=True"
    for options in ({}, {"download": False}):
        with pytest.raises(DataError, match=message):
            TASKS["omniglot"](split="test", data_root=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_archive_reaches_the_user_as_a_clear_error(tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "omniglot"
    folder.mkdir()
    write(folder / "images_evaluation.zip", members())
    path = write(folder / "images_background.zip", members())
    with pytest.raises(
        DataError, match=r"images_background\.zip holds 2 alphabets and 3 characters.* 30 and 964, each"
    ):
        TASKS["omniglot"](split="test", data_root=tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"images_background\.zip is damaged"):
        TASKS["omniglot"](split="test", data_root=tmp_path)
    assert not own_cache.exists()


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
        ({"protocol": "vinyals"}, r"protocol='vinyals'; give one of paper, background"),
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


def test_no_original_is_in_two_splits(data_root: Path) -> None:
    parts = [TASKS["omniglot"](split=split, data_root=data_root, size=105) for split in ("train+validation", "test")]
    images = [{row.numpy().tobytes() for row in task.pixels(range(task.images))} for task in parts]
    assert not images[0] & images[1]


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
    # Processor time, so that a busy machine does not fail it: 2.5 s and 0.05 s on a 2020s core.
    start = time.process_time()
    with caplog.at_level(logging.WARNING):
        first = TASKS["omniglot"](split="train+validation", data_root=data_root)
    assert time.process_time() - start < 5
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
