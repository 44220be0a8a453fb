"""Image files of a folder or a zip archive, and their preprocessing into pixels."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from metadensity.checks import require_count
from tasks.data.cache import sha256_of_json
from tasks.data.roots import DataError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FITS = ("crop", "stretch")
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, zlib.error, struct.error, zipfile.BadZipFile)


class ImageFiles:
    """The files of a folder, or of a zip archive read in place, by their sorted paths (with /) relative to it.

    A zip that holds nothing but one folder of folders counts as that folder. Hidden files are left out.
    images: paths of image files, known by their suffix.

    Raises DataError where there is no such folder or archive, or no image in it.
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
        self.images = [name for name in self._found if Path(name).suffix.lower() in SUFFIXES]
        if not self.images:
            raise DataError(f"{path} holds no images (files that end in {', '.join(sorted(SUFFIXES))}). Name another.")

    def _members(self) -> dict[str, list[int]]:
        try:
            self._archive = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as problem:
            raise DataError(f"{self.path} is no folder and no zip archive that can be read ({problem}).") from problem
        found = {
            info.filename: [info.file_size, info.CRC]
            for info in self._archive.infolist()
            if not info.is_dir() and not any(part.startswith((".", "__MACOSX")) for part in info.filename.split("/"))
        }
        tops = {name.split("/")[0] for name in found}
        images = [name for name in found if Path(name).suffix.lower() in SUFFIXES]
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
        except (*_DAMAGE, KeyError) as problem:
            raise DataError(f"{name} cannot be read ({problem}). Replace the file.") from problem


def _walk(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts) and path.is_file():
            status = path.stat()
            yield name.as_posix(), status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Preparation:
    """How an image file becomes ``(images, C, size, size)`` uint8 pixels in ``[0, levels)``.

    size: pixels a side. grey: one channel of luminance instead of red, green and blue.
    levels: 256, or fewer, each standing for an equal part of the 256.
    fit: "crop", the largest square in the middle, or "stretch", the whole image, is resized (Lanczos).
    crops: 0, or the number of different windows of size x size cut out, at places drawn for each file from its name,
        at the image's own resolution.
    resize: with crops, first resize the image so that its shorter side has so many pixels.

    Transparent places become white. Raises ValueError for values out of range.
    """

    size: int
    grey: bool = False
    levels: int = 256
    fit: str = "crop"
    crops: int = 0
    resize: int | None = None

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

    @property
    def event_shape(self) -> tuple[int, int, int]:
        """Shape of one image, ``(C, size, size)``."""
        return 1 if self.grey else 3, self.size, self.size

    @property
    def per_file(self) -> int:
        """Images that a file becomes."""
        return max(1, self.crops)

    def recipe(self) -> dict[str, Any]:
        """The values, JSON-able, with a version of what is done with them."""
        return {"version": 1, **asdict(self)}

    def pixels(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """The pixels of a file's bytes. Raises DataError where they are damaged or the image is too small to crop."""
        try:
            with Image.open(io.BytesIO(data)) as opened:
                image = _opaque(ImageOps.exif_transpose(opened)).convert("L" if self.grey else "RGB")
        except (*_DAMAGE, Image.DecompressionBombError) as problem:
            message = f"{name} is no image that can be read, or is damaged ({problem}). Replace or remove the file."
            raise DataError(message) from problem
        parts = self._windows(image, name) if self.crops else self._fit(image)
        shrunk = np.stack([np.asarray(part) for part in parts])
        quantised = (shrunk.astype(np.uint16) * self.levels >> 8).astype(np.uint8)
        return np.ascontiguousarray(quantised[:, None] if self.grey else quantised.transpose(0, 3, 1, 2))

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
