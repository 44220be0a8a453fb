"""How 105 x 105 is shrunk: each method against a plain twin, and against Pillow or torch where they have it."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, floor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tasks.omniglot.shrink import METHODS, area, bilinear, maxpool, nearest, shrunk

SIDE = 105


@pytest.fixture(scope="module")
def strokes() -> NDArray[np.bool_]:
    """Three images of random short lines."""
    random = np.random.default_rng(0)
    images = np.zeros((3, SIDE, SIDE), dtype=bool)
    for image in images:
        for _ in range(12):
            row, column = random.integers(0, SIDE - 30, 2)
            length = int(random.integers(5, 30))
            image[row : row + 3, column : column + length] = True
            image[column : column + length, row : row + 2] = True
    return images


@pytest.mark.parametrize("size", [26, 35, 52, 21, 15])
def test_max_pooling_is_that_of_a_layer(strokes: NDArray[np.bool_], size: int) -> None:
    window = SIDE // size
    pooled = torch.nn.functional.max_pool2d(torch.from_numpy(strokes).float()[:, None], window)[:, 0]
    assert np.array_equal(pooled.bool().numpy(), maxpool(strokes, size))


@pytest.mark.parametrize("size", [1, 20, 28, 32, 64, 104])
def test_other_sizes_share_the_pixels_out(strokes: NDArray[np.bool_], size: int) -> None:
    edges = [floor(i * SIDE / size) for i in range(size + 1)]
    windows = [slice(start, end) for start, end in pairwise(edges)]
    twin = np.array([[[image[rows, columns].any() for columns in windows] for rows in windows] for image in strokes])
    assert np.array_equal(twin, maxpool(strokes, size))


def test_no_ink_is_lost_where_windows_share_the_pixels_out() -> None:
    for size in (28, 40):
        for row, column in ((0, 0), (104, 104), (52, 3), (27, 88)):
            image = np.zeros((1, SIDE, SIDE), dtype=bool)
            image[0, row, column] = True
            assert maxpool(image, size).sum() == 1


def test_nearest_takes_the_pixel_in_the_middle(strokes: NDArray[np.bool_]) -> None:
    picked = [floor((i + 0.5) * SIDE / 28) for i in range(28)]
    assert np.array_equal(nearest(strokes, 28), strokes[:, picked][:, :, picked])


@pytest.mark.parametrize("size", [26, 28])
def test_area_is_the_covered_part(strokes: NDArray[np.bool_], size: int) -> None:
    def part(image: NDArray[np.bool_], i: int, j: int) -> float:
        total = 0.0
        (top, bottom), (left, right) = ((k * SIDE / size, (k + 1) * SIDE / size) for k in (i, j))
        for row in range(floor(top), min(ceil(bottom), SIDE)):
            for column in range(floor(left), min(ceil(right), SIDE)):
                high, wide = min(row + 1, bottom) - max(row, top), min(column + 1, right) - max(column, left)
                total += image[row, column] * high * wide
        return total / (SIDE / size) ** 2

    covered = np.array([[part(strokes[0], i, j) for j in range(size)] for i in range(size)])
    for threshold in (0.25, 0.5, 0.9):
        assert np.array_equal(area(strokes[:1], size, threshold)[0], covered >= threshold - 1e-5)


@pytest.mark.parametrize("size", [26, 28, 50])
def test_bilinear_is_pillows(strokes: NDArray[np.bool_], size: int) -> None:
    for image in strokes:
        grey = Image.fromarray(image.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BILINEAR)
        # Pillow rounds to 256 levels: pixels that lie on the threshold may differ.
        clear = np.abs(np.asarray(grey) / 255 - 0.5) > 0.01
        assert np.array_equal(bilinear(image[None], size, 0.5)[0][clear], (np.asarray(grey) > 127)[clear])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_empty_and_full_images_and_the_original_size(
    strokes: NDArray[np.bool_], method: str
) -> None:
    for size in (5, 26, 28, 104):
        assert not shrunk(np.zeros((2, SIDE, SIDE), dtype=bool), size, method, 0.5).any()
        assert shrunk(np.ones((2, SIDE, SIDE), dtype=bool), size, method, 1.0).all()
        assert shrunk(strokes, size, method, 0.5).shape == (3, size, size)
    assert np.array_equal(shrunk(strokes, SIDE, method, 0.5), strokes)


def test_the_threshold_matters_to_area_and_bilinear_alone(strokes: NDArray[np.bool_]) -> None:
    for method in METHODS:
        low, high = (shrunk(strokes, 26, method, threshold) for threshold in (0.2, 0.9))
        assert (low.sum() > high.sum()) == (method in ("area", "bilinear"))


@pytest.mark.parametrize(
    ("size", "method", "threshold", "message"),
    [
        (26, "max", 0.5, r"shrink='max'; give one of maxpool, nearest, area, bilinear"),
        (26, "area", 0.0, r"threshold=0\.0; give the part of a window that must be ink, above 0 and at most 1"),
        (26, "area", 1.5, r"threshold=1\.5; give"),
        (0, "area", 0.5, r"size=0; give 1 to 105, the size of the originals"),
        (106, "area", 0.5, r"size=106; give 1 to 105"),
    ],
)
def test_bad_recipes_are_refused(
    strokes: NDArray[np.bool_], size: int, method: str, threshold: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        shrunk(strokes, size, method, threshold)
