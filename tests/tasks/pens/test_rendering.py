"""The same glyph is an image, a sequence of moves and a film of its drawing."""

from __future__ import annotations

import numpy as np
import pytest

from tasks import TASKS, ImageTasks
from tasks.hershey.drawing import draw, written
from tasks.hershey.task import split_glyphs
from tasks.pens import decode, encode, film, image, in_unit_square, on_grid
from tasks.pens.rendering import up_to

GLYPHS = split_glyphs("test")[::40]


def test_the_strokes_of_a_glyph_draw_the_image_of_the_task_hershey() -> None:
    task = TASKS["hershey"]("validation")
    assert isinstance(task, ImageTasks)
    glyph = split_glyphs("validation")[7]
    number = task.class_names.index(glyph.name)
    hand = written(glyph, 0, 1, 28)
    drawn = image(np.split(hand.points[0], hand.ends[:-1]), 28, hand.pens[0], side=28)
    assert (drawn == task.pixels(int(task.class_start[number]))[0].numpy().astype(bool)).all()


def test_of_others_of_a_glyph_two_pixels_at_most_differ() -> None:
    for glyph in GLYPHS:
        hand, images = written(glyph, 0, 4, 28), draw(glyph, 0, 4, 28)
        for number, points in enumerate(hand.points):
            drawn = image(np.split(points, hand.ends[:-1]), 28, hand.pens[number], side=28)
            assert (drawn != images[number]).sum() <= (2 if number else 0)


@pytest.mark.parametrize(("grid", "most"), [(28, 0.060), (56, 0.040)])
def test_a_string_draws_nearly_the_image(grid: int, most: float) -> None:
    differing, of_another = [], []
    images = [draw(glyph, 0, 1, 28)[0] for glyph in GLYPHS]
    for number, glyph in enumerate(GLYPHS):
        hand = written(glyph, 0, 1, 28)
        cells, _ = on_grid(np.split(hand.points[0] / 28, hand.ends[:-1]), grid)
        drawn = image(in_unit_square(decode(encode(cells, grid), grid), grid), 28)
        differing.append((drawn != images[number]).mean())
        of_another.append((drawn != images[number - 1]).mean())
    assert 0 < np.mean(differing) < most
    assert np.mean(of_another) > 0.2


def test_a_film_grows_stroke_by_stroke_into_the_image() -> None:
    for glyph in GLYPHS:
        hand = written(glyph, 0, 1, 28)
        strokes = np.split(hand.points[0], hand.ends[:-1])
        shown = film(strokes, 28, hand.pens[0], side=28)
        assert shown.shape == (len(strokes), 28, 28)
        assert (shown[-1] == draw(glyph, 0, 1, 28)[0]).all()
        assert (shown[:-1] <= shown[1:]).all(), "ink stays"
        assert (shown[0] == (image(strokes[:1], 28, hand.pens[0], side=28) & shown[-1])).all()


def test_frames_share_the_way_of_the_pen_equally() -> None:
    line = [np.array([[0.1, 0.5], [0.9, 0.5]])]
    shown = film(line, 40, frames=8)
    ink = shown.any(1).sum(-1)
    assert len(ink) == 8
    assert (abs(np.diff(ink) - 0.8 * 40 / 8) <= 1).all()
    assert (shown[-1] == image(line, 40)).all()
    half = up_to([np.array([[0.0, 0.0], [0.4, 0.0]]), np.array([[0.0, 0.1], [0.0, 0.5]])], 0.75)
    np.testing.assert_allclose(half[1], [[0.0, 0.1], [0.0, 0.3]], atol=1e-12)
    assert up_to(half, 0.0) == []


def test_dots_are_drawn_and_have_their_frame() -> None:
    dots = [np.array([[0.25, 0.25]]), np.array([[0.75, 0.75]])]
    shown = film(dots, 28, frames=2)
    assert shown[0, 7, 7]
    assert not shown[0, 21, 21]
    assert shown[1, 21, 21]
    assert not image([], 28).any()
    with pytest.raises(ValueError, match="there are no strokes, so there is no film"):
        film([], 28)
