"""Omniglot's archives: small made ones, for what can be wrong with an archive."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tasks import TASKS, DataError
from tasks.data.download import md5_of
from tasks.omniglot.archives import SIDE, Archive, ink_rows, read_archive

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
def test_every_kind_of_png_has_the_same_rows(mode: str) -> None:
    for number in range(5):
        content = png(scribble(number), mode)
        assert ink_rows(content, "name") == np.packbits(scribble(number), axis=1).tobytes()


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
    read_archive(path, replace(SMALL, md5=md5_of(path)))
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


def test_torchvisions_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "omniglot-py").mkdir()
    for name in ("images_evaluation.zip", "images_background.zip"):
        write(tmp_path / "omniglot-py" / name, members())
    with pytest.raises(DataError, match=r"omniglot-py/images_background\.zip holds 2 alphabets"):
        TASKS["omniglot"](split="test", data_root=tmp_path)


@pytest.mark.parametrize(("byte", "value"), [(8, 9), (6, 1)], ids=["deflate64", "encrypted"])
def test_an_archive_that_python_does_not_read_is_named(tmp_path: Path, byte: int, value: int) -> None:
    data = bytearray(write(tmp_path / "small.zip", members()).read_bytes())
    name = b"images/Beta/character01/0002_01.png"
    for offset, start in ((byte, data.index(name) - 30), (byte + 2, data.rindex(name) - 46)):
        data[start + offset] = value
    (tmp_path / "small.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"small\.zip is damaged \(.*(compression|encrypted).*\)\. Delete it"):
        read_archive(tmp_path / "small.zip", SMALL)
