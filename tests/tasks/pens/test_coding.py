"""Drawings as strings: what goes in comes out, within what the grid and the tolerance allow."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.hershey.drawing import written
from tasks.hershey.task import split_glyphs
from tasks.pens import decode, encode, in_unit_square, levels_of, on_grid
from tasks.pens.coding import Cells, Points, require_coding

GRID = 28
END = levels_of(5) - 1
CELL = st.tuples(st.integers(0, GRID - 1), st.integers(0, GRID - 1))


def without_repeats(points: list[tuple[int, int]]) -> Cells:
    return np.array([point for at, point in enumerate(points) if not at or point != points[at - 1]])


STROKE = st.lists(CELL, min_size=1, max_size=8).map(without_repeats)


def dense(strokes: list[Points], a_unit: int = 40) -> Points:
    """Points along strokes, so many a unit of length."""
    parts = [strokes[0][:1]]
    for stroke in strokes:
        parts.append(stroke[:1])
        for start, end in pairwise(stroke):
            count = 2 + int(a_unit * np.hypot(*(end - start)))
            parts.append(start + np.linspace(0, 1, count)[:, None] * (end - start))
    return np.concatenate(parts)


def apart(first: Points, second: Points) -> float:
    """The Hausdorff distance."""
    between = np.hypot(*(first[:, None] - second[None]).transpose(2, 0, 1))
    return float(max(between.min(0).max(), between.min(1).max()))


@settings(max_examples=40)
@given(st.lists(STROKE, max_size=5), st.integers(1, 5))
def test_strokes_of_cells_come_back(strokes: list[Cells], reach: int) -> None:
    """Point by point; between them come points of straight lines, where a way is longer than the reach."""
    string = encode(strokes, GRID, reach)
    assert string.dtype == np.uint8
    assert (string < levels_of(reach) - 1).all()
    back = decode(np.r_[string, [levels_of(reach) - 1] * 3], GRID, reach)
    assert len(back) == len(strokes)
    for stroke, decoded in zip(strokes, back, strict=True):
        rest = iter(decoded.tolist())
        assert all(point in rest for point in stroke.tolist()), "in this order"
        assert (abs(np.diff(decoded, axis=0)) <= reach).all()
        assert decoded[0].tolist() == stroke[0].tolist()
        assert decoded[-1].tolist() == stroke[-1].tolist()
        assert apart(dense([decoded + 0.0], 2), dense([stroke + 0.0], 2)) < 1, (
            "half a cell along each axis, and the steps"
        )
    assert (encode(back, GRID, reach) == string).all()


@pytest.mark.parametrize(("grid", "tolerance"), [(28, 0.5), (28, 0.0), (56, 1.0)])
def test_what_is_decoded_is_as_near_as_it_is_said(grid: int, tolerance: float) -> None:
    for glyph in split_glyphs("test")[::60]:
        hand = written(glyph, 0, 1, 28)
        strokes = np.split(hand.points[0] / 28, hand.ends[:-1])
        cells, clipped = on_grid(strokes, grid, tolerance)
        assert clipped == 0
        back = in_unit_square(decode(encode(cells, grid), grid), grid)
        assert len(back) == len(strokes)
        distance = apart(dense(back), dense(strokes)) * grid
        assert 0 < distance < tolerance + 1.3, "cells, and the steps at which this is measured"


def test_more_tolerance_takes_fewer_moves() -> None:
    circle = np.stack([np.cos(turn := np.linspace(0, 6.28, 200)), np.sin(turn)], 1) * 0.4 + 0.5
    exact, rough = (encode(on_grid([circle], GRID, tolerance)[0], GRID) for tolerance in (0.0, 0.5))
    assert len(exact) > 2 * len(rough)


def test_dots_and_strokes_that_go_on_where_another_ended_are_strokes() -> None:
    strokes = [np.array([[14, 14]]), np.array([[14, 14], [15, 14]]), np.array([[15, 14], [15, 10]])]
    string = encode(strokes, GRID)
    here, air = 5 * 11 + 5, 121
    assert string.tolist() == [air + here, here, air + here, here + 1, air + here, here - 4 * 11]
    assert [stroke.tolist() for stroke in decode(string, GRID)] == [stroke.tolist() for stroke in strokes]


def test_any_string_is_a_drawing() -> None:
    """Of a model too: it may draw at once, leave the grid, and lift the pen for nothing."""
    here = 5 * 11 + 5
    assert decode([], GRID) == []
    assert decode([END, 3, 5], GRID) == [], "nothing comes after an end"
    assert decode([121 + here, 121 + here + 3], GRID) == [], "moves in the air draw nothing"
    (stroke,) = decode([here + 5] * 4, GRID)
    assert stroke.tolist() == [[14, 14], [19, 14], [24, 14], [29, 14], [34, 14]]


def test_points_beyond_the_square_are_clipped_and_counted() -> None:
    cells, clipped = on_grid([np.array([[0.5, 0.5], [1.2, 0.5], [1.2, -0.1]]), np.array([[1.0, 1.0]])], 10, 0.0)
    assert clipped == 2
    assert [stroke.tolist() for stroke in cells] == [[[5, 5], [9, 5], [9, 0]], [[9, 9]]]


def test_bad_input_says_what_to_give() -> None:
    with pytest.raises(ValueError, match="give a row of symbols from 0 to 242: reach=5"):
        decode([243], GRID)
    with pytest.raises(ValueError, match="string has shape"):
        decode([[1, 2]], GRID)
    with pytest.raises(ValueError, match="a stroke has no points; leave it out"):
        encode([np.empty((0, 2), dtype=np.int64)], GRID)
    with pytest.raises(ValueError, match="reach=6; give 1 to 5 cells"):
        require_coding(28, 6)
    with pytest.raises(ValueError, match="grid=1; give at least 2"):
        require_coding(1, 5)
