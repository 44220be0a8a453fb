"""Strokes as lines of one pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bitmap = NDArray[np.bool_]
_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # clockwise, from the one above
_CODES = (np.arange(256)[:, None] >> np.arange(8)) & 1  # (256, 8): which neighbours are ink


def _table(sides: tuple[tuple[int, int, int], tuple[int, int, int]]) -> Bitmap:
    """``(256,)``: with which neighbours a pixel is taken away, where one of each three of ``sides`` is paper."""
    starts = ((_CODES == 0) & (np.roll(_CODES, -1, axis=1) == 1)).sum(1)  # of runs of ink around it
    edge = (_CODES.sum(1) >= 2) & (_CODES.sum(1) <= 6) & (starts == 1)
    return np.asarray(edge & np.all([_CODES[:, side].min(1) == 0 for side in sides], axis=0))


_TABLES = (_table(((0, 2, 4), (2, 4, 6))), _table(((0, 2, 6), (0, 4, 6))))


def thinned(ink: Bitmap) -> Bitmap:
    """``(H, W)`` ink as lines of one pixel, where it was, by the parallel rule of Zhang and Suen.

    (1984, "A fast parallel algorithm for thinning digital patterns".) What hangs together does so afterwards.
    """
    lines = np.pad(ink, 1)
    inside = lines[1:-1, 1:-1]
    changed = True
    while changed:
        changed = False
        for table in _TABLES:
            rows, columns = np.nonzero(inside)
            code = np.zeros(len(rows), dtype=np.int64)
            for bit, (down, right) in enumerate(_AROUND):
                code |= lines[rows + 1 + down, columns + 1 + right].astype(np.int64) << bit
            gone = table[code]
            inside[rows[gone], columns[gone]] = False
            changed |= bool(gone.any())
    return np.ascontiguousarray(inside)
