"""Downsampling of square binary images; the method changes a likelihood by several per cent."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bitmaps = NDArray[np.bool_]
_CHUNK = 2000  # images at a time: some 100 MB of float32


def maxpool(images: Bitmaps, size: int) -> Bitmaps:
    """Ink wherever a window holds ink.

    With k = side // size: where side // k is the size, windows are k x k with stride k and what is left
    over at the right and the bottom is dropped, as a max-pooling layer does (105 to 26: 4 x 4, the paper's
    recipe). For other sizes, window i is [floor(i side / size), floor((i + 1) side / size)): no pixel is
    dropped and none counted twice, and windows differ by one pixel in width.
    """
    side = images.shape[1]
    window = side // size
    for _ in range(2):  # along the first of the two, where numpy is fast, then turned
        if side // window == size:
            places = (images[:, place : size * window : window] for place in range(window))
            pooled = functools.reduce(np.logical_or, places)  # five times as fast as reduceat
        else:
            pooled = np.logical_or.reduceat(images, np.arange(size) * side // size, axis=1)
        images = np.ascontiguousarray(pooled.transpose(0, 2, 1))
    return images


def nearest(images: Bitmaps, size: int) -> Bitmaps:
    """The pixel in the middle of each window, floor((i + 1/2) side / size)."""
    picked = ((2 * np.arange(size) + 1) * images.shape[1]) // (2 * size)
    return images[:, picked[:, None], picked]


def area(images: Bitmaps, size: int, threshold: float) -> Bitmaps:
    """Ink where at least ``threshold`` of the window is ink; border pixels count by the part inside."""
    side = images.shape[1]
    edges = np.arange(size + 1) * side / size
    pixel = np.arange(side)
    inside = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return _weighted(images, np.maximum(inside, 0), threshold)


def bilinear(images: Bitmaps, size: int, threshold: float) -> Bitmaps:
    """As ``area``, with weights that fall linearly to 0 one window away from the middle (Pillow's BILINEAR)."""
    side = images.shape[1]
    middle = (np.arange(size) + 0.5) * side / size
    away = np.abs(np.arange(side) + 0.5 - middle[:, None])
    return _weighted(images, np.maximum(1 - away * size / side, 0), threshold)


def _weighted(images: Bitmaps, weights: NDArray[np.float64], threshold: float) -> Bitmaps:
    rows = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    out = np.empty((len(images), len(rows), len(rows)), dtype=bool)
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK].astype(np.float32)
        # A hair below, so that rounding does not decide where exactly the threshold is covered.
        out[start : start + _CHUNK] = rows @ part @ rows.T >= threshold - 1e-5
    return out


_PLAIN: dict[str, Callable[[Bitmaps, int], Bitmaps]] = {"maxpool": maxpool, "nearest": nearest}
_THRESHOLDED: dict[str, Callable[[Bitmaps, int, float], Bitmaps]] = {"area": area, "bilinear": bilinear}
METHODS = (*_PLAIN, *_THRESHOLDED)


def require_recipe(method: str, threshold: float) -> None:
    """Raise ValueError for a method or threshold that does not exist."""
    if method not in METHODS:
        raise ValueError(f"shrink={method!r}; give one of {', '.join(METHODS)}.")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}; give the part of a window that must be ink, above 0 and at most 1.")


def shrunk(images: Bitmaps, size: int, method: str, threshold: float) -> Bitmaps:
    """``(n, side, side)`` to ``(n, size, size)``, ink True. The threshold concerns "area" and "bilinear" alone."""
    require_recipe(method, threshold)
    if not 1 <= size <= images.shape[1]:
        raise ValueError(f"size={size}; give 1 to {images.shape[1]}, the size of the originals.")
    if size == images.shape[1]:
        return images
    if method in _PLAIN:
        return _PLAIN[method](images, size)
    return _THRESHOLDED[method](images, size, threshold)
