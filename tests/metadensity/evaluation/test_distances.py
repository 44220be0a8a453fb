"""Pixel distances by hand, and against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from metadensity.evaluation.distances import pixel_distances


def draw(number: int, levels: int, seed: int, shape: tuple[int, ...] = (3, 1, 4, 5)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (number, *shape), generator=generator).to(torch.uint8)


@pytest.mark.parametrize(("levels", "shape"), [(2, (3, 1, 4, 5)), (17, (2, 3, 4)), (256, (2, 3, 2, 2, 2))])
def test_equals_the_loop(levels: int, shape: tuple[int, ...]) -> None:
    images, references = draw(4, levels, 0, shape), draw(5, levels, 1, shape)
    found = pixel_distances(images, references, levels)
    assert found.shape == (4, shape[0], 5)
    for n in range(4):
        for t in range(shape[0]):
            for m in range(5):
                a, b = images[n, t].double(), references[m, t].double()
                hamming = float((a != b).double().mean())
                square = math.sqrt(float(((a - b) / (levels - 1)).square().mean()))
                assert float(found[n, t, m]) == pytest.approx(hamming if levels == 2 else square, abs=1e-12)


def test_the_ends() -> None:
    black, white = torch.zeros(1, 1, 1, 3, 3, dtype=torch.uint8), torch.full((1, 1, 1, 3, 3), 9, dtype=torch.uint8)
    assert pixel_distances(black, white, 10).item() == 1
    assert pixel_distances(white, white, 10).item() == 0
    image = draw(1, 256, 3, (1, 3, 32, 32))
    assert pixel_distances(image, image.clone(), 256).item() == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"images \(2, 3, 1, 4, 5\) and references \(2, 2, 1, 4, 5\).*alike after"):
        pixel_distances(draw(2, 2, 0), draw(2, 2, 0, (2, 1, 4, 5)), 2)
    with pytest.raises(TypeError, match=r"references holds torch.float32"):
        pixel_distances(draw(2, 2, 0), draw(2, 2, 0).float(), 2)
    with pytest.raises(ValueError, match=r"images holds pixels from 0 to 6; with levels=2"):
        pixel_distances(draw(50, 7, 0), draw(2, 2, 0), 2)
