"""Class augmentation: a character once more as a new class, all its drawings sheared, scaled and turned alike.

Reed et al. do not augment. A character in another style is as good as another character to a model that is to learn
what drawings of one have in common, and is no drawing of the old one: it is a class of its own.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from metadensity.checks import require_count

STYLES_VERSION = 1  # raised when the same arguments begin to give other pixels

# Standard deviations
TURN = 0.10  # radians
LEAN = 0.18  # shear of the horizontal by the vertical
LOG_WIDTH = 0.15
LOG_HEIGHT = 0.10

_LIMIT = 2.0  # normal numbers are clipped here
_LARGEST = 1000


def require_styles(styles: int) -> int:
    """A number of styles. Raises ValueError for one that is negative, or so large that it must be a mistake."""
    styles = require_count("styles", styles, 0)
    if styles > _LARGEST:
        raise ValueError(f"styles={styles}; give 0 to {_LARGEST} further classes for each.")
    return styles


def style(name: str, number: int) -> NDArray[np.float64]:
    """Style ``number`` of a character, as a matrix ``(2, 2)`` for columns of x, y; a function of the two."""
    key = int.from_bytes(hashlib.sha256(f"{name} {number}".encode()).digest()[:8], "little")
    turn, lean, width, height = np.clip(np.random.default_rng(key).standard_normal(4), -_LIMIT, _LIMIT)
    turn, wide, high = TURN * turn, np.exp(LOG_WIDTH * width), np.exp(LOG_HEIGHT * height)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.asarray(turned @ np.array([[wide, LEAN * lean * high], [0.0, high]]))


def restyled(drawings: NDArray[np.bool_], matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
    """``(n, side, side)`` bitmaps of a character, ink True, through ``matrix`` about the middle of their ink.

    Each pixel is the nearest one of the original. Where ink would leave the image, all is made smaller until it fits.
    """
    side = drawings.shape[1]
    inked: NDArray[np.bool_] = np.any(drawings, axis=0)
    rows, columns = np.flatnonzero(np.any(inked, axis=1)), np.flatnonzero(np.any(inked, axis=0))
    if not len(rows):
        return drawings.copy()
    low, high = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]])
    middle = (low + high) / 2
    corners = (np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(2, -1) - middle[:, None]).T
    reach = np.abs(corners @ matrix.T).max(0)
    room = np.minimum(middle, side - 1 - middle)
    fits = np.min(room / np.maximum(reach, 1e-9))
    back = np.linalg.inv(matrix * min(1.0, fits))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side))).reshape(2, -1)  # x, y of each pixel
    source = np.rint(back @ (grid - middle[:, None]) + middle[:, None]).astype(np.int64)
    inside = ((source >= 0) & (source < side)).all(0)
    x, y = np.where(inside, source, 0)
    return np.asarray((drawings[:, y, x] & inside).reshape(drawings.shape))
