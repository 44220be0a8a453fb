"""What is read of a folder of images: bit depths, links, archives, formats; what is left out or damaged is named."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks import DataError
from tasks.data.notices import SAID
from tasks.folders.folder import folder
from tasks.folders.image_files import ImageFiles, Preparation, suffixes
from tasks.folders.mirror import mirror
from tests.tasks.pictures import make_folder, save_noise, zipped

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
SHADES = Preparation(256, grey=True)


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is said in this test, as if nothing had been said before."""
    SAID.clear()
    caplog.set_level(logging.WARNING, "tasks")
    return caplog


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm", "jpeg2000"])
def test_sixteen_bits_are_scaled_by_their_range(kind: str) -> None:
    """Each shade of the 256 stands for 256 of the 65,536 in a row."""
    options = {"irreversible": False} if kind == "jpeg2000" else {}
    pixels = SHADES.pixels(encoded(Image.fromarray(RAMP), kind, **options), "ramp")[0, 0]
    assert pixels.tolist() == (RAMP >> 8).tolist()
    in_colour = Preparation(256).pixels(encoded(Image.fromarray(RAMP), kind, **options), "ramp")[0]
    assert (in_colour == pixels).all()


def test_a_tiff_may_be_big_endian_or_white_at_zero() -> None:
    big = Image.frombytes("I;16B", (256, 256), RAMP.astype(">u2").tobytes())
    assert SHADES.pixels(encoded(big, "tiff"), "big")[0, 0].tolist() == (RAMP >> 8).tolist()
    inverted = encoded(Image.fromarray(RAMP), "tiff", tiffinfo={262: 0})
    assert SHADES.pixels(inverted, "inverted")[0, 0].tolist() == (255 - (RAMP >> 8)).tolist()


def test_floats_reach_from_0_to_1() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).repeat(256).reshape(256, 256)
    data = encoded(Image.fromarray(ramp), "tiff")
    assert SHADES.pixels(data, "ramp")[0, 0, :, 0].tolist() == list(range(256))
    scaled = Preparation(256, grey=True, white=255.0).pixels(encoded(Image.fromarray(ramp * 255), "tiff"), "ramp")
    assert scaled[0, 0, :, 0].tolist() == list(range(256))


def test_the_white_of_a_format_may_be_named() -> None:
    ten_bits = encoded(Image.fromarray(RAMP >> 6))  # 10-bit data in a 16-bit file
    pixels = Preparation(256, grey=True, white=1023).pixels(ten_bits, "ten")[0, 0]
    assert pixels.tolist() == (RAMP >> 8).tolist()
    whole = encoded(Image.fromarray(RAMP.astype(np.int32)), "tiff")
    assert Preparation(256, grey=True, white=65535).pixels(whole, "whole")[0, 0].tolist() == (RAMP >> 8).tolist()
    assert "white" not in Preparation(4).recipe()  # recipes of earlier versions stay equal
    assert Preparation(4, white=9).recipe()["white"] == 9
    with pytest.raises(ValueError, match="white=0; give the value that is white"):
        Preparation(4, white=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            RAMP.astype(np.int32),
            r"x holds values from 0 to 65535, and which of them is white is not known. Give w",
        ),
        (np.linspace(0, 255, 256, dtype=np.float32)[None], r"values from 0 to 255, and black is 0 and white 1"),
        (np.array([[-1024.0, 0.5]], np.float32), r"values from -1024 to 0.5"),
        (np.array([[np.nan, 0.5]], np.float32), r"values from nan to nan"),
    ],
    ids=["32 bits", "floats to 255", "below 0", "nan"],
)
def test_values_without_a_known_range_are_refused(values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preparation(4).pixels(encoded(Image.fromarray(values), "tiff"), "x")


def test_transparent_places_of_sixteen_bits_are_white() -> None:
    data = encoded(Image.fromarray(np.array([[0, 65535], [30000, 0]], np.uint16)), transparency=30000)
    assert Preparation(2, grey=True).pixels(data, "x")[0, 0].tolist() == [[0, 255], [255, 0]]


def test_dark_images_are_said_to_be(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    for name in "abc":
        for number in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray((RAMP >> 6)[number::64]).save(tmp_path / name / f"{number}.png")
    folder(folder=tmp_path, size=4)
    assert "no pixel of all images is brighter than 3 of 255" in warned.text
    SAID.clear()
    warned.clear()
    folder(folder=tmp_path, size=4)  # out of the cache
    assert "white= says which value is white" in warned.text
    warned.clear()
    folder(folder=tmp_path, size=4, white=1023)
    assert not warned.text


def test_linked_class_folders_are_followed(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    elsewhere, root = make_folder(tmp_path / "elsewhere", {"d": 2, "e": 3}), tmp_path / "root"
    make_folder(root, dict.fromkeys("abc", 2))
    for name in "de":
        (root / name).symlink_to(elsewhere / name)
    names = folder("train+validation+test", folder=root, size=4)
    assert sorted(names.class_names) == list("abcde")
    assert not warned.text
    plain = make_folder(tmp_path / "plain", dict.fromkeys("abc", 2))
    for name in "de":
        (elsewhere / name).rename(plain / name)
        (root / name).unlink()
        (root / name).symlink_to(plain / name)
    assert folder("train", folder=plain, size=4).class_names == folder("train", folder=root, size=4).class_names
    all_links = tmp_path / "links"
    all_links.mkdir()
    for name in "abcde":
        (all_links / name).symlink_to(plain / name)
    assert folder("train", folder=all_links, size=4).fingerprint == folder("train", folder=plain, size=4).fingerprint


def test_no_folder_counts_twice_and_no_loop_is_endless(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    """The same images as two classes would be trained on and tested on."""
    make_folder(tmp_path, dict.fromkeys("abc", 2))
    (tmp_path / "again").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "c" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "c" / "image.png").symlink_to(tmp_path / "a" / "000.png")
    assert ImageFiles(tmp_path).images == [
        *("a/000.png", "a/001.png", "b/000.png", "b/001.png", "c/000.png", "c/001.png", "c/image.png")
    ]
    assert "left out are links to folders that are in it already: a/loop, again." in warned.text
    assert "left out are links that lead nowhere: c/lost.png." in warned.text


def test_formats_that_pillow_reads_are_read_and_others_named(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    make_folder(tmp_path, dict.fromkeys("abc", 1))
    with Image.open(tmp_path / "a/000.png") as image:
        for kind in ("jfif", "pgm", "tga", *(["avif"] if ".avif" in suffixes() else [])):
            image.save(tmp_path / f"a/more.{kind}")
        image.save(tmp_path / "b/more.PNG")
    for name in ("a/photo.heic", "b/photo.HEIC", "b/drawing.svg", "c/0001", "c/notes.txt", "README", "classes.csv"):
        (tmp_path / name).write_bytes(b"...")
    files = ImageFiles(tmp_path)
    read = {name.rpartition(".")[2] for name in files.images}
    assert read >= {"jfif", "pgm", "tga", "png", "PNG"}
    assert ("avif" in read) == (".avif" in suffixes())
    assert "left out is what this Pillow does not read as images, by its suffix: " in warned.text
    assert "1 without a suffix, 2 of .heic, 1 of .svg." in warned.text
    assert folder("train+validation+test", folder=tmp_path, size=4, min_images=1).images == len(files.images)
    only = tmp_path.parent / "only"
    (only / "a").mkdir(parents=True)
    (only / "a" / "photo.heic").touch()
    with pytest.raises(DataError, match=r"holds no images .*; it holds 1 of .heic. Name another"):
        ImageFiles(only)


def test_all_damaged_images_are_named_at_once(
    tmp_path: Path, own_cache: Path, warned: pytest.LogCaptureFixture
) -> None:
    root = make_folder(tmp_path / "x", dict.fromkeys("abcde", 4))
    victims = ["a/000.png", "c/001.png", "c/002.png"]
    for name in victims:
        (root / name).write_bytes(b"not an image")
    for build in (folder, mirror):
        with pytest.raises(DataError) as caught:
            build("train", folder=root, size=4)
        text = str(caught.value)
        assert "3 of 20 images cannot be used:" in text
        assert [line.split()[0] for line in text.splitlines()[1:-1]] == victims
        assert text.endswith("To leave what cannot be used out of the data, give damaged=skip.")
        assert "BytesIO" not in text
        assert not list((own_cache / "cache").glob("*")), "a store that was refused stays"
        with pytest.raises(ValueError, match="damaged='drop'; give one of refuse, skip"):
            build("train", folder=root, size=4, damaged="drop")


def test_damaged_images_may_be_left_out(tmp_path: Path, own_cache: Path, warned: pytest.LogCaptureFixture) -> None:
    sizes = {"a": 3, "b": 4, "c": 2, "d": 4, "e": 4}
    whole = make_folder(tmp_path / "whole", sizes)
    root = make_folder(tmp_path / "x", dict.fromkeys("abcde", 4))
    for name in ("a/003.png", "c/002.png", "c/003.png"):
        (root / name).write_bytes(b"")
    every = "train+validation+test"
    for _ in range(2):  # the second time out of the cache
        SAID.clear()
        warned.clear()
        task = folder(every, folder=root, size=4, damaged="skip")
        assert "3 of 20 images are left out, as they cannot be used (damaged=skip): a/003.png, c/002.png" in warned.text
        assert task.recipe["damaged_left_out"] == ["a/003.png", "c/002.png", "c/003.png"]
        assert task.fingerprint == folder(every, folder=whole, size=4).fingerprint
    with pytest.raises(DataError, match="3 of 20 images cannot be used"):
        folder("train", folder=root, size=4)
    assert "damaged_left_out" not in folder(every, folder=whole, size=4, damaged="skip").recipe
    larger = folder(every, folder=root, size=4, damaged="skip", min_images=3)
    assert sorted(larger.class_names) == list("abde")
    assert mirror(every, folder=root, size=4, damaged="skip").images == 2 * 17


DEFLATE64, BY_PASSWORD = 9, 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("deflate64", r"x.zip: b/000.png cannot be read \(.*compression.*\). Unpack the archive with the program"),
        ("encrypted", r"x.zip: b/000.png cannot be read \(.*encrypted.*\). Unpack the archive and name the folder"),
        ("checksum", r"x.zip: b/000.png cannot be read \(Bad CRC.*\). Replace the file"),
        ("cut", r"x.zip is no folder and no zip archive that can be read \(.*\). Unpack it"),
        ("version", r"x.zip is no folder and no zip archive that can be read \(zip file version"),
    ],
)
def test_what_zipfile_does_not_read_is_named(tmp_path: Path, change: str, message: str) -> None:
    path = zipped(make_folder(tmp_path / "x", dict.fromkeys("abc", 2)), tmp_path / "x.zip")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("b/000.png").header_offset
    central = data.rindex(b"b/000.png") - 46  # the record of the directory at the end of the file
    if change == "deflate64":
        data[offset + 8] = data[central + 10] = DEFLATE64
    elif change == "encrypted":
        data[offset + 6] |= BY_PASSWORD
        data[central + 8] |= BY_PASSWORD
    elif change == "checksum":
        data[offset + 60] ^= 0xFF
    elif change == "version":
        data[central + 6] = 99
    path.write_bytes(data[:-40] if change == "cut" else data)
    with pytest.raises(DataError, match=message):
        folder("train", folder=path, size=4)


def test_noise_is_not_dark(tmp_path: Path, warned: pytest.LogCaptureFixture) -> None:
    """Nothing is said of a folder in which nothing is wrong."""
    make_folder(tmp_path, dict.fromkeys("abc", 2))
    save_noise(tmp_path / "a/x.jpeg", 7)
    folder("train", folder=tmp_path, size=4)
    assert not warned.text
