"""Characters in further styles: classes of their own, for training alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks import TASKS
from tasks.styles import restyled, style


def blot(side: int = 31) -> np.ndarray:
    """Three drawings of something lopsided."""
    drawings = np.zeros((3, side, side), dtype=bool)
    for number in range(3):
        drawings[number, 5 : 20 + number, 8:11] = True
        drawings[number, 18:21, 8 : 22 + number] = True
    return drawings


def test_a_style_is_a_function_of_the_character_and_its_number() -> None:
    assert np.array_equal(style("a", 1), style("a", 1))
    assert not np.array_equal(style("a", 1), style("a", 2))
    assert not np.array_equal(style("a", 1), style("b", 1))
    matrices = np.stack([style("a", number) for number in range(500)])
    assert (np.linalg.det(matrices) > 0.5).all(), "no character is mirrored"
    assert np.allclose(matrices.mean(0), np.eye(2), atol=0.05)  # 500 of deviation 0.2 at most: 5 standard errors


def test_nothing_changes_without_a_change() -> None:
    assert np.array_equal(restyled(blot(), np.eye(2)), blot())


def test_all_drawings_change_alike() -> None:
    leaning = np.array([[1.0, 0.4], [0.0, 1.0]])
    out = restyled(blot(), leaning)
    assert not np.array_equal(out, blot())
    for number in range(3):  # a drawing alone, with the ink of the others out of the way, leans about another middle
        assert np.array_equal(out[number], restyled(np.stack([blot()[number], blot().any(0)]), leaning)[0])
    rows = [np.flatnonzero(out[0, row]).mean() for row in (6, 14)]
    assert rows[0] < rows[1], "what is above goes left, as y points downwards"


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_no_ink_leaves_the_image(factor: float) -> None:
    drawings = np.zeros((1, 31, 31), dtype=bool)
    drawings[:, [0, 30], :] = drawings[:, :, [0, 30]] = True  # a frame
    turn = np.array([[0.9, -0.4], [0.4, 0.9]]) * factor
    out = restyled(drawings, turn)[0]
    grid = np.stack(np.meshgrid(np.arange(31), np.arange(31))).reshape(2, -1) - 15
    corner = np.abs(turn @ np.array([[15, 15], [15, -15]]).T).max()
    back = np.linalg.inv(turn * min(1, 15 / corner)) @ grid
    ring = (np.abs(np.rint(back)).max(0) == 15).reshape(31, 31)
    assert np.array_equal(out, ring)
    assert np.array_equal(restyled(np.zeros((2, 5, 5), dtype=bool), turn), np.zeros((2, 5, 5), dtype=bool))


@pytest.mark.parametrize(("name", "options"), [("hershey", {"size": 12, "drawings": 4}), ("omniglot", {"size": 14})])
def test_further_classes_are_for_training_alone(name: str, options: dict[str, Any]) -> None:
    plain, styled = (TASKS[name](split="train", styles=number, **options) for number in (0, 1))
    count = len(plain.class_names)
    assert styled.class_names[:count] == plain.class_names
    assert styled.class_names[count:] == [f"{known} style 1" for known in plain.class_names]
    assert len(set(styled.class_names)) == 2 * count
    assert np.array_equal(styled.class_group[count:], plain.class_group)
    assert np.array_equal(styled.class_size, np.tile(plain.class_size, 2))
    assert styled.recipe != plain.recipe
    pixels = styled._pixels.reshape(2, -1)
    assert np.array_equal(pixels[0], plain._pixels.ravel())
    assert (pixels[0] != pixels[1]).mean() > 0.02
    for split in ("validation", "test"):
        with_styles, without = (TASKS[name](split=split, styles=number, **options) for number in (3, 0))
        assert with_styles.fingerprint == without.fingerprint
        assert with_styles.recipe == without.recipe


@pytest.mark.parametrize("name", ["hershey", "omniglot"])
@pytest.mark.parametrize("styles", [-1, 1001, 1.5])
def test_numbers_of_styles_that_are_none(name: str, styles: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="styles="):
        TASKS[name](split="train", styles=styles)
