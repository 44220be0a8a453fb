"""Image files of a folder or a zip archive, and their preprocessing into pixels."""

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from metadensity.checks import require_count
from metadensity.files import ARCHIVE_ERRORS
from tasks.data.cache import sha256_of_json
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError

USUAL = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
OTHERS: tuple[str, ...] = (".apng", ".avif", ".dib", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".pbm", ".pfm")
OTHERS = (*OTHERS, ".pgm", ".pnm", ".qoi", ".tga")
"""Suffixes of images: those that every Pillow reads, and those that are read where this one does."""
BESIDE = frozenset({".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".rst", ".tsv", ".txt", ".xml"})
BESIDE |= {".yaml", ".yml"}
"""Suffixes of what lies beside images and is none; anything else that is left out is named."""
FITS = ("crop", "stretch")
DAMAGED = ("refuse", "skip")
_DAMAGE = (*ARCHIVE_ERRORS, SyntaxError, Image.DecompressionBombError)
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


def suffixes() -> tuple[str, ...]:
    """Suffixes of the files that are read as images, in lower case.

    A plug-in such as pillow-heif adds its own once it is registered with Pillow.
    """
    known = Image.registered_extensions()
    return (*USUAL, *(suffix for suffix in OTHERS if suffix in known))


class ImageFiles:
    """The files of a folder, or of a zip archive read in place, by their sorted paths (with /) relative to it.

    A zip that holds nothing but one folder of folders counts as that folder. Hidden files are left out. Folders that
    are links are followed, each folder once, so that no image counts twice and no loop is endless.
    images: paths of image files, known by their suffix (``suffixes``). What else is left out is said, by its kind.

    Raises DataError where there is no such folder or archive, where it cannot be read, or holds no image.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._prefix = ""
        self._archive: zipfile.ZipFile | None = None
        if path.is_dir():
            found = {name: [size, time] for name, size, time in _walk(path)}
        elif path.is_file():
            found = self._members()
        else:
            raise DataError(f"there is no folder or zip archive {path}. Name one that holds images.")
        self._found = {name: found[name] for name in sorted(found)}
        read = suffixes()
        self.images = [name for name in self._found if Path(name).suffix.lower() in read]
        left_out = _said(name for name in self._found if Path(name).suffix.lower() not in read)
        if not self.images:
            raise DataError(
                f"{path} holds no images (files that end in {', '.join(read)})"
                f"{f'; it holds {left_out}' if left_out else ''}. Name another."
            )
        if left_out:
            say_once(f"{path}: left out is what this Pillow does not read as images, by its suffix: {left_out}.")

    def _members(self) -> dict[str, list[int]]:
        try:
            self._archive = zipfile.ZipFile(self.path)
        except ARCHIVE_ERRORS as problem:
            raise DataError(
                f"{self.path} is no folder and no zip archive that can be read ({problem}). Unpack it and name the "
                "folder, or get the archive again."
            ) from problem
        found = {
            info.filename: [info.file_size, info.CRC]
            for info in self._archive.infolist()
            if not info.is_dir() and not any(part.startswith((".", "__MACOSX")) for part in info.filename.split("/"))
        }
        tops, read = {name.split("/")[0] for name in found}, suffixes()
        images = [name for name in found if Path(name).suffix.lower() in read]
        if len(tops) == 1 and images and all(name.count("/") > 1 for name in images):
            self._prefix = f"{tops.pop()}/"
        return {name.removeprefix(self._prefix): what for name, what in found.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._found

    @property
    def signature(self) -> str:
        """SHA-256, in hex, that changes when an image is added, removed or written anew."""
        return sha256_of_json([[name, *self._found[name]] for name in self.images])

    def read(self, name: str) -> bytes:
        """The bytes of a file; DataError where it cannot be read."""
        try:
            return self._archive.read(self._prefix + name) if self._archive else (self.path / name).read_bytes()
        except NotImplementedError as problem:  # Deflate64, as Windows Explorer packs what is beyond 2 GB
            raise DataError(
                f"{name} cannot be read ({problem}). Unpack the archive with the program that packed it and name the "
                "folder, or pack it anew by the usual method, deflate."
            ) from problem
        except RuntimeError as problem:  # it is encrypted
            raise DataError(f"{name} cannot be read ({problem}). Unpack the archive and name the folder.") from problem
        except (*_DAMAGE, KeyError) as problem:
            raise DataError(f"{name} cannot be read ({problem}). Replace the file.") from problem


def _said(names: Iterable[str]) -> str:
    """``3 of .psd, 1 without a suffix``: the files of class folders that may be meant as images; "" for none."""
    kinds = Counter(PurePosixPath(name).suffix.lower() for name in names if "/" in name)
    named = sorted((kind, count) for kind, count in kinds.items() if kind not in BESIDE)
    return ", ".join(f"{count} {f'of {kind}' if kind else 'without a suffix'}" for kind, count in named)


def _walk(top: Path) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of each file under a folder; hidden ones are left out, links followed after all else."""
    waiting, links, seen = deque([(top, "")]), deque[tuple[Path, str]](), set[tuple[int, int]]()
    lost: list[str] = []
    again: list[str] = []
    while waiting or links:
        folder, inside = waiting.popleft() if waiting else links.popleft()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                again.append(inside.removesuffix("/"))
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as problem:
            raise DataError(f"{folder} cannot be read ({problem}). Allow it to be read, or remove it.") from problem
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = inside + entry.name
            if entry.is_dir():
                (links if entry.is_symlink() else waiting).append((Path(entry.path), f"{name}/"))
            elif entry.is_file():
                yield name, entry.stat().st_size, entry.stat().st_mtime_ns
            elif entry.is_symlink():
                lost.append(name)
    if again:
        say_once(f"{top}: left out are links to folders that are in it already: {in_short(sorted(again))}.")
    if lost:
        say_once(f"{top}: left out are links that lead nowhere: {in_short(sorted(lost))}.")


@dataclass(frozen=True)
class Preparation:
    """How an image file becomes ``(images, C, size, size)`` uint8 pixels in ``[0, levels)``.

    size: pixels a side. grey: one channel of luminance instead of red, green and blue.
    levels: 256, or fewer, each standing for an equal part of the 256.
    fit: "crop", the largest square in the middle, or "stretch", the whole image, is resized (Lanczos).
    crops: 0, or the number of different windows of size x size cut out, at places drawn for each file from its name,
        at the image's own resolution.
    resize: with crops, first resize the image so that its shorter side has so many pixels.
    white: the value that is white in images of more than 8 bits or of floats, 0 being black. None: the most that the
        format holds (65535 for 16 bits), and 1 for floats; integers of 32 bits need it. Images of 8 bits ignore it.

    Transparent places become white. Raises ValueError for values out of range.
    """

    size: int
    grey: bool = False
    levels: int = 256
    fit: str = "crop"
    crops: int = 0
    resize: int | None = None
    white: float | None = None

    def __post_init__(self) -> None:
        require_count("size", self.size, 1)
        require_count("crops", self.crops, 0)
        if not 2 <= require_count("levels", self.levels, 2) <= 256:
            raise ValueError(f"levels={self.levels}; give 2 to 256.")
        if self.fit not in FITS:
            raise ValueError(f"fit={self.fit!r}; give one of {', '.join(FITS)}.")
        if self.resize is not None and require_count("resize", self.resize, 1) < self.size:
            raise ValueError(f"resize={self.resize} leaves no window of size={self.size}; give at least the size.")
        if self.resize is not None and not self.crops:
            raise ValueError(f"resize={self.resize} without crops; give crops=1 or more, or leave resize out.")
        if self.white is not None and not 0 < self.white < math.inf:
            raise ValueError(f"white={self.white}; give the value that is white, a number above 0, or None.")

    @property
    def event_shape(self) -> tuple[int, int, int]:
        """Shape of one image, ``(C, size, size)``."""
        return 1 if self.grey else 3, self.size, self.size

    @property
    def per_file(self) -> int:
        """Images that a file becomes."""
        return max(1, self.crops)

    def recipe(self) -> dict[str, Any]:
        """The values, JSON-able, with a version of what is done with them; those of earlier versions stay equal."""
        values = {"version": 1, **asdict(self)}
        if self.white is None:
            del values["white"]
        return values

    def pixels(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """The pixels of a file's bytes; raises DataError as ``opened``, and where the image is too small to crop."""
        return self.of_image(self.opened(data, name), name)

    def of_image(self, image: Image.Image, name: str = "the image") -> NDArray[np.uint8]:
        """The pixels of an image of 8 bits. name: what decides which windows are cut out, and what errors say."""
        image = image.convert("L" if self.grey else "RGB")
        parts = self._windows(image, name) if self.crops else self._fit(image)
        shrunk = np.stack([np.asarray(part) for part in parts])
        quantised = (shrunk.astype(np.uint16) * self.levels >> 8).astype(np.uint8)
        return np.ascontiguousarray(quantised[:, None] if self.grey else quantised.transpose(0, 3, 1, 2))

    def opened(self, data: bytes, name: str) -> Image.Image:
        """The image of a file's bytes, at its own size, of 8 bits, on white where it is transparent.

        Raises DataError where they are damaged, or its values are not between 0 and ``white``.
        """
        try:
            with Image.open(io.BytesIO(data)) as opened:
                image = self._in_eight_bits(ImageOps.exif_transpose(opened), opened, name)
                return _opaque(image).convert("L" if self.grey else "RGB")
        except DataError:
            raise
        except _DAMAGE as problem:
            said = "its format is not known" if isinstance(problem, UnidentifiedImageError) else problem
            message = f"{name} is no image that can be read, or is damaged ({said}). Replace or remove the file."
            raise DataError(message) from problem

    def _in_eight_bits(self, image: Image.Image, opened: Image.Image, name: str) -> Image.Image:
        """An image of more than 8 bits a channel or of floats in 8 bits; Pillow itself cuts off what is above 255."""
        if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
            return image
        values, tags = np.asarray(image), getattr(opened, "tag_v2", {})
        low, high, white = float(values.min()), float(values.max()), self.white
        if white is None and image.mode == "F":
            white = 1.0
        elif white is None and (image.mode != "I" or opened.format in ("PNG", "PPM")):
            white = 2.0 ** min(16, *tags.get(_BITS, (16,))) - 1  # a TIFF may have 12
        if white is None or not 0 <= low <= high <= white:  # what is not a number is refused as well
            known = "which of them is white is not known" if white is None else f"black is 0 and white {white:g}"
            raise DataError(
                f"{name} holds values from {low:g} to {high:g}, and {known}. Give white=, the value that is to be "
                "white, or convert the image to 8 bits."
            )
        scaled = np.minimum(values.astype(np.float64) * (256 / white), 255).astype(np.uint8)
        if opened.format == "TIFF" and tags.get(_PHOTOMETRIC, 0) == 0:  # 0 is white: Pillow inverts those of 8 bits
            scaled = 255 - scaled
        converted = Image.fromarray(scaled)
        if isinstance(transparent := image.info.get("transparency"), int):
            converted.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
        return converted

    def _fit(self, image: Image.Image) -> Iterator[Image.Image]:
        width, height = image.size
        box: tuple[float, float, float, float] | None = None
        if self.fit == "crop":
            side = min(width, height)
            box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
        yield image.resize((self.size, self.size), Image.Resampling.LANCZOS, box)

    def _windows(self, image: Image.Image, name: str) -> Iterator[Image.Image]:
        if self.resize is not None:
            factor = self.resize / min(image.size)
            width, height = (max(self.resize, round(side * factor)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        width, height = image.size
        if min(width, height) < self.size:
            raise DataError(
                f"{name} has {width} x {height} pixels: no window of {self.size} x {self.size} fits. Ask for a smaller "
                f"size, give resize={self.size} or more to enlarge, or remove the file."
            )
        key = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], dtype="<u8").astype(np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        across, down = width - self.size + 1, height - self.size + 1
        if self.crops > across * down:
            raise DataError(f"{name} has {across * down} windows of {self.size} x {self.size}, not crops={self.crops}.")
        drawn: dict[tuple[int, int], None] = {}
        while len(drawn) < self.crops:  # no window twice, and fewer crops are the first of more
            drawn[int(random.random() * across), int(random.random() * down)] = None
        for left, top in drawn:
            yield image.crop((left, top, left + self.size, top + self.size))


def _opaque(image: Image.Image) -> Image.Image:
    """On white, where the image has transparent places."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
