"""Strokes of the Hershey fonts, and the published strokes of Omniglot."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metadensity.files import ARCHIVE_ERRORS
from metadensity.progress import with_progress
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError
from tasks.hershey.drawing import written
from tasks.hershey.glyphs import Glyph
from tasks.pens.coding import Points

Drawing = list[Points]
"""Strokes ``(points, 2)`` x, y, y downwards, in the unit square."""
HERSHEY_SIZE = 28  # of the images of the task hershey, whose hands these are
STROKES = ("strokes_background_small1.zip", "strokes_background_small2.zip")
SIDE = 105  # of an image of Omniglot
OFFSET = (0.75, 0.64)  # pixels, from the strokes' coordinates to the images' own, measured on the images
_MEMBER = re.compile(r"(?:(?!__MACOSX/).*/)?([^/]+)/(character\d+)/(\d+_\d+)\.txt")


def hershey_drawings(glyphs: list[Glyph], seed: int, drawings: int) -> dict[str, list[Drawing]]:
    """The strokes of the images of the task hershey, by the names of the glyphs."""
    found = {}
    for glyph in with_progress(glyphs, "writing glyphs, this once", "glyphs"):
        hand = written(glyph, seed, drawings, HERSHEY_SIZE)
        found[glyph.name] = [np.split(points / HERSHEY_SIZE, hand.ends[:-1]) for points in hand.points]
    return found


def omniglot_drawings(paths: list[Path]) -> dict[str, list[Drawing]]:
    """The strokes by "Alphabet/characterNN", sorted; of a character that is in several archives, those of the first.

    In the files x and y are pixels of the images, y upwards from 0 at the top, and a third column is the time in ms. It
    is checked and not used: where it runs backwards the points are taken as they are written. How many files that
    concerns is said. Raises DataError for an archive that is damaged or a file in it that is no drawing.
    """
    found: dict[str, dict[str, Drawing]] = {}
    backwards: list[str] = []
    files = 0
    for path in paths:
        known = set(found)
        try:
            with zipfile.ZipFile(path) as archive:
                members = sorted(name for name in archive.namelist() if _MEMBER.fullmatch(name))
                if not members:
                    raise DataError(f"{path} holds no strokes, Alphabet/characterNN/NNNN_NN.txt. Replace it.")
                for name in with_progress(members, f"reading {path.name}, this once", "drawings"):
                    match = _MEMBER.fullmatch(name)
                    assert match is not None
                    character = f"{match[1]}/{match[2]}"
                    if character in known:
                        continue
                    strokes, times = _stroke_file(archive.read(name).decode("ascii"), f"{path}, {name}")
                    found.setdefault(character, {})[match[3]] = strokes
                    backwards += [name] if (np.diff(times) < 0).any() else []
                    files += 1
        except DataError:
            raise
        except ARCHIVE_ERRORS as problem:
            raise DataError(f"{path} is damaged ({problem}). Replace it.") from problem
    if backwards:
        say_once(
            f"pens, omniglot: in {len(backwards):,} of {files:,} drawings time runs backwards somewhere; their points "
            f"are taken in the order in which they are written: {in_short(backwards, 3)}."
        )
    return {character: [drawings[name] for name in sorted(drawings)] for character, drawings in sorted(found.items())}


def _stroke_file(text: str, where: str) -> tuple[Drawing, NDArray[np.float64]]:
    """The strokes of a file, and the times of all its points. DataError, naming the line, for anything else."""
    lines = text.splitlines()
    if not lines or lines[0] != "START":
        raise DataError(f"{where}, line 1: a file of strokes begins with START. Replace it.")
    strokes: list[list[list[float]]] = [[]]
    for number, line in enumerate(lines[1:], 2):
        if line == "BREAK":
            strokes.append([])
            continue
        try:
            x, y, t = map(float, line.split(","))
        except ValueError:
            raise DataError(f"{where}, line {number}: {line!r} is no point x,y,t and no BREAK. Replace it.") from None
        strokes[-1].append([x, y, t])
    arrays = [np.array(stroke) for stroke in strokes if stroke]
    if not arrays:
        raise DataError(f"{where} holds no points: an empty drawing. Leave it out.")
    if not all(np.isfinite(stroke).all() for stroke in arrays):
        raise DataError(f"{where} holds coordinates that are no finite numbers. Replace it.")
    times = np.concatenate(arrays)[:, 2]
    return [(stroke[:, :2] * (1, -1) + OFFSET) / SIDE for stroke in arrays], times
