"""What a pen draws: the image of a drawing, and the film of its being drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metadensity.checks import require_count
from tasks.hershey.drawing import PEN, THINNEST_PEN, Handwriting, rasterised
from tasks.pens.coding import Points

_DOT = 1e-3  # of the side: what a dot counts as in the length of the way, so that it has its time in a film


def usual_pen(size: int) -> float:
    """The middling width of the pens of the task hershey, in pixels of an image of ``size`` x ``size``."""
    return float(max(THINNEST_PEN, sum(PEN) / 2 * size / 28))


def image(strokes: Sequence[Points], size: int, pen: float | None = None, side: float = 1.0) -> NDArray[np.bool_]:
    """The drawing ``(size, size)``, ink True, of strokes ``(points, 2)`` x, y, y downwards, in a square of ``side``.

    pen: its width in pixels; None: ``usual_pen``. Omniglot's images are drawn by one of about 4 pixels of 105.

    With the strokes and the pen of ``written`` this is the image of the task hershey: the first of a glyph bit for bit,
    of others up to two pixels differ, as Pillow rounds where it draws and hershey draws all of them on one canvas. A
    string has another pen, and its strokes are rounded to cells: of 784 pixels 36 differ at a grid of 28 and 22 at one
    of 56. No strokes: no ink.
    """
    size = require_count("size", size, 1)
    if not strokes:
        return np.zeros((size, size), dtype=bool)
    points = np.concatenate([np.asarray(stroke, dtype=np.float64) for stroke in strokes])
    ends = np.cumsum([len(stroke) for stroke in strokes])
    drawn = rasterised(Handwriting(points[None] * (size / side), ends, np.array([pen or usual_pen(size)])), size)[0]
    for stroke in strokes:
        x, y = np.floor(np.asarray(stroke[0]) * (size / side)).astype(np.int64)
        if len(stroke) == 1 and min(x, y) >= 0 and max(x, y) < size:
            drawn[y, x] = True  # a dot between pixels would cover less than half of each
    return drawn


def film(
    strokes: Sequence[Points], size: int, pen: float | None = None, side: float = 1.0, frames: int | None = None
) -> NDArray[np.bool_]:
    """The drawing as it grows, ``(frames, size, size)``, ink True; the last frame is the ``image``.

    frames: how many, each with an equal part more of the way that the pen makes on the paper; None: one a stroke. Ink
    stays once it is there, and none is there that the image has not. Raises ValueError where there are no strokes.
    """
    if not strokes:
        raise ValueError("there are no strokes, so there is no film of them; give one stroke at least.")
    last = image(strokes, size, pen, side)
    if frames is None:
        parts = [list(strokes[:count]) for count in range(1, len(strokes))]
    else:
        frames = require_count("frames", frames, 1)
        parts = [up_to(strokes, frame / frames) for frame in range(1, frames)]
    shown = np.zeros_like(last)
    grown = []
    for part in parts:
        shown = shown | (image(part, size, pen, side) & last)
        grown.append(shown)
    return np.stack([*grown, last])


def up_to(strokes: Sequence[Points], share: float) -> list[Points]:
    """The first ``share`` of the way of the pen on the paper, from 0 to 1; the stroke that it ends in is cut there."""
    ways = [np.hypot(*np.diff(stroke, axis=0).T) for stroke in strokes]
    left = share * sum(max(_DOT, float(way.sum())) for way in ways)
    shown: list[Points] = []
    for stroke, way in zip(strokes, ways, strict=True):
        if left <= 0:
            break
        if left >= way.sum():
            shown.append(stroke)
        else:
            run = np.r_[0.0, way.cumsum()]
            last = int(np.searchsorted(run, left)) - 1
            cut = stroke[last] + (stroke[last + 1] - stroke[last]) * (left - run[last]) / way[last]
            shown.append(np.concatenate([stroke[: last + 1], cut[None]]))
        left -= max(_DOT, float(way.sum()))
    return shown
