"""The stroke glyphs of the Hershey fonts, normalised, and when two of them are the same shape."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from HersheyFonts import HersheyFonts
from numpy.typing import NDArray

Points = NDArray[np.float64]

_GRID = 64  # cells along a side of the raster on which shapes are compared
_MARGIN = 0.05  # border of that raster, in units of the glyph's box
_PEN = 0.035  # half the width of the pen of the compared bitmaps, in the same units
# Where two shapes count as one. Both were set by eye, on pairs just inside and just outside.
STROKE_DISTANCE = 0.08
BITMAP_OVERLAP = 0.75


@dataclass(frozen=True)
class Glyph:
    """One character of a font: strokes as ``(points, 2)`` arrays of x, y, y downwards.

    The strokes' box is centred on 0 and its longer side is 1; ``code`` is the character's position in
    the font as the package numbers it, from 32. style: 0, or which further class for training it is.
    """

    font: str
    code: int
    strokes: tuple[Points, ...]
    style: int = 0

    @property
    def name(self) -> str:
        """Font and code, such as "japanese/097", and the style where there is one."""
        return f"{self.font}/{self.code:03d}" + (f" style {self.style}" if self.style else "")

    @property
    def shape_key(self) -> frozenset[tuple[tuple[float, float], ...]]:
        """Equal for equal strokes, whatever their place, size, order and direction."""
        lines = (tuple(map(tuple, (np.round(stroke, 2) + 0.0).tolist())) for stroke in self.strokes)
        return frozenset(min(line, line[::-1]) for line in lines)


@lru_cache(maxsize=1)
def hershey_fonts() -> dict[str, tuple[Glyph, ...]]:
    """Every font's glyphs by font name; blank glyphs and lone points are left out."""
    reader = HersheyFonts()
    fonts = {}
    for font in sorted(reader.default_font_names):
        reader.load_default_font(font)
        glyphs = (normalised(font, ord(key), list(glyph.strokes)) for key, glyph in reader.all_glyphs.items())
        fonts[font] = tuple(glyph for glyph in glyphs if glyph is not None)
    return fonts


def normalised(
    font: str, code: int, strokes: Sequence[Sequence[tuple[float, float]]] | Sequence[Points]
) -> Glyph | None:
    """A glyph from raw strokes, moved and scaled into its box; None where there is nothing to draw."""
    lines = [np.asarray(stroke, dtype=np.float64) for stroke in strokes if len(stroke) > 1]
    if not lines:
        return None
    points = np.concatenate(lines)
    low, high = points.min(axis=0), points.max(axis=0)
    extent = float((high - low).max())
    if extent <= 0:
        return None
    return Glyph(font, code, tuple((line - (low + high) / 2) / extent for line in lines))


def fonts_checksum(fonts: dict[str, tuple[Glyph, ...]]) -> str:
    """SHA-256, in hex, over all strokes of all fonts: whether the package still holds the shapes we split."""
    digest = hashlib.sha256()
    for font in sorted(fonts):
        for glyph in fonts[font]:
            digest.update(f"{glyph.name};".encode())
            for stroke in glyph.strokes:
                digest.update(np.round(stroke * 1e6).astype("<i8").tobytes())
    return digest.hexdigest()


def subdivided(stroke: Points, step: float) -> Points:
    """The stroke with points added so that no two neighbours are further apart than ``step``."""
    parts = [stroke[:1]]
    for start, end in pairwise(stroke):
        count = max(1, int(np.ceil(np.hypot(*(end - start)) / step - 1e-9)))
        parts.append(start + (end - start) * (np.arange(1, count + 1) / count)[:, None])
    return np.concatenate(parts)


def alike(first: Sequence[Glyph], second: Sequence[Glyph]) -> NDArray[np.bool_]:
    """Which pairs are one shape, ``(len(first), len(second))``.

    Two tests, on glyphs normalised for place and size: every point of one's strokes lies within
    ``STROKE_DISTANCE`` of the other's and the reverse (the Hausdorff distance, in units of the longer
    side of the box); or their bitmaps, drawn with one pen and shifted by at most one pixel of 32,
    overlap by ``BITMAP_OVERLAP`` (intersection over union). So a letter is found again in another weight
    or a slightly different cut. Rotated and mirrored copies are other shapes, as b and d are.
    """
    rasters = [_Raster.of(glyphs) for glyphs in (first, second)]
    one, other = rasters
    apart = np.empty((len(first), len(second)), dtype=np.float32)
    for i, cells in enumerate(one.cells):
        apart[i] = other.distance[:, cells].max(axis=1)
    for j, cells in enumerate(other.cells):
        apart[:, j] = np.maximum(apart[:, j], one.distance[:, cells].max(axis=1))
    return (apart <= STROKE_DISTANCE) | (_overlap(one.bitmaps, other.bitmaps) >= BITMAP_OVERLAP)


@dataclass(frozen=True)
class _Raster:
    """cells: the raster cells under each glyph's strokes. distance: from each cell to the strokes, ``(n, cells)``."""

    cells: list[NDArray[np.int64]]
    distance: NDArray[np.float32]

    @staticmethod
    def of(glyphs: Sequence[Glyph]) -> _Raster:
        from scipy.ndimage import distance_transform_edt

        unit = (_GRID - 1) / (1 + 2 * _MARGIN)
        cells = []
        distance = np.empty((len(glyphs), _GRID * _GRID), dtype=np.float32)
        for row, glyph in enumerate(glyphs):
            points = np.concatenate([subdivided(stroke, 0.5 / unit) for stroke in glyph.strokes])
            x, y = np.round((points + 0.5 + _MARGIN) * unit).astype(np.int64).T
            cells.append(np.unique(y * _GRID + x))
            empty = np.ones(_GRID * _GRID, dtype=bool)
            empty[cells[-1]] = False
            distance[row] = distance_transform_edt(empty.reshape(_GRID, _GRID)).ravel() / unit
        return _Raster(cells, distance)

    @property
    def bitmaps(self) -> NDArray[np.bool_]:
        """Bitmaps of 32 x 32: every second cell."""
        return self.distance.reshape(-1, _GRID, _GRID)[:, ::2, ::2] <= _PEN


def _overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Intersection over union, the best over shifts of one pixel; ``(len(first), len(second))``."""
    still = second.reshape(len(second), -1).astype(np.float32)
    best = np.zeros((len(first), len(second)), dtype=np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            moved = np.roll(first, (down, right), axis=(1, 2)).reshape(len(first), -1).astype(np.float32)
            common = moved @ still.T
            union = moved.sum(axis=1)[:, None] + still.sum(axis=1)[None] - common
            np.maximum(best, common / union, out=best)
    return best
