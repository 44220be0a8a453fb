"""Omniglot's two published archives: 105 x 105 bits an image, verified by counts and checksums."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metadensity.files import ARCHIVE_ERRORS
from metadensity.progress import with_progress
from tasks.data.download import md5_of
from tasks.data.roots import DataError

SIDE = 105
ROW = -(-SIDE // 8)  # bytes of a packed row
# https://github.com/brendenlake/omniglot, folder python
URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
_MEMBER = re.compile(r"(?:.*/)?([^/]+)/(character\d+)/(\d+_\d+)\.png")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A published archive and what it holds.

    pixels_sha256: over the packed images in order of alphabet, character and file name, ink = 1; None
    leaves it unchecked. A copy packed anew has another md5 and the same pixels.
    """

    file: str
    md5: str
    alphabets: int
    characters: int
    drawings: int = 20
    pixels_sha256: str | None = None

    @property
    def url(self) -> str:
        """Where it is published."""
        return URL + self.file


BACKGROUND = Archive(
    "images_background.zip",
    md5="68d2efa1b9178cc56df9314c21c6e718",
    alphabets=30,
    characters=964,
    pixels_sha256="9c3332a29fc6dfe1ebfa338ed67d11316c9ccdade8ee267c5969e2d28eb54843",
)
EVALUATION = Archive(
    "images_evaluation.zip",
    md5="6b91aef0f799c5bb55b94e3f2daec811",
    alphabets=20,
    characters=659,
    pixels_sha256="8f5313fc09877bee2f3af3cf5dd8ce6c28f28bca0459249557982a15ac5f7170",
)


@dataclass(frozen=True)
class Characters:
    """names: "Alphabet/characterNN" of each character, sorted. packed: ``(characters * drawings, 105, 14)``
    uint8, rows through ``numpy.packbits``, ink 1, sorted by character, then by drawer."""

    names: list[str]
    packed: NDArray[np.uint8]


def read_archive(path: Path, archive: Archive) -> Characters:
    """All images of an archive.

    Raises DataError where it cannot be read to the end or holds other numbers of alphabets, characters or
    drawings. A copy that was packed anew (another md5) is taken for its contents, and a warning says so.
    """
    remedy = f"Delete it and download it again, from {archive.url}."
    try:
        found, rows = _members(path)
    except (*ARCHIVE_ERRORS, SyntaxError) as problem:
        raise DataError(f"{path} is damaged ({problem}). {remedy}") from problem
    drawings = Counter(found)
    alphabets = {name.split("/")[0] for name in drawings}
    wrong = [f"{name} has {count} drawings" for name, count in drawings.items() if count != archive.drawings]
    if len(alphabets) != archive.alphabets or len(drawings) != archive.characters or wrong:
        raise DataError(
            f"{path} holds {len(alphabets)} alphabets and {len(drawings)} characters"
            + (f" ({wrong[0]})" if wrong else "")
            + f"; expected are {archive.alphabets} and {archive.characters}, each with {archive.drawings} drawings. "
            + remedy
        )
    packed = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, SIDE, ROW)
    _report(path, archive, packed)
    return Characters(list(drawings), packed)


def _report(path: Path, archive: Archive, packed: NDArray[np.uint8]) -> None:
    """Say so where the file is not the published one."""
    same = archive.pixels_sha256 in (None, hashlib.sha256(packed.tobytes()).hexdigest())
    if not same:
        _log.warning("%s holds the right characters, but not the published pixels: results will differ.", path)
    elif (md5 := md5_of(path)) != archive.md5:
        _log.warning(
            "%s is not the published file (md5 %s, not %s) but a copy packed anew: accepted, as it holds %d alphabets "
            "and %d characters with %d drawings each%s.",
            *(path, md5, archive.md5, archive.alphabets, archive.characters, archive.drawings),
            "" if archive.pixels_sha256 is None else ", pixel for pixel",
        )


def _members(path: Path) -> tuple[list[str], list[bytes]]:
    """For each image, sorted: "Alphabet/characterNN", and its rows."""
    with zipfile.ZipFile(path) as archive:
        matched = ((_MEMBER.fullmatch(name), name) for name in archive.namelist())
        members = sorted((match.groups(), name) for match, name in matched if match is not None)
        names = [f"{alphabet}/{character}" for (alphabet, character, _), _ in members]
        shown = with_progress(members, f"reading {path.name}, this once", "drawings")
        return names, [ink_rows(archive.read(name), name) for _, name in shown]


def ink_rows(png: bytes, name: str) -> bytes:
    """The 105 packed rows of a PNG, ink (black) = 1. ValueError where it is not 105 x 105 and two-valued."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        if image.size != (SIDE, SIDE):
            raise ValueError(f"{name} has {image.size[0]} x {image.size[1]} pixels, not {SIDE} x {SIDE}")
        if image.mode == "1":  # as published
            return image.tobytes("raw", "1;I")  # a bit a pixel, inverted
        grey = np.asarray(image.convert("L"))
    ink = grey == 0
    if not (ink | (grey == 255)).all():
        raise ValueError(f"{name} is not black and white")
    return np.packbits(ink, axis=1).tobytes()
