"""Films of drawings: each grows into its image, splits are by class, and no film stands twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks import SPLITS, TASKS, ImageTasks
from tasks.data.roots import DataError
from tasks.films import _of_splits
from tasks.hershey.task import split_glyphs
from tasks.pens import image
from tasks.pens.drawings import hershey_drawings

# Those of tests/tasks/test_registry.py, so that they are drawn once.
OPTIONS: dict[str, Any] = {"drawings": 8, "size": 12, "frames": 2}


@pytest.fixture(scope="module")
def films() -> ImageTasks:
    return TASKS["films"](split="validation", **OPTIONS)


def test_ink_stays_and_the_last_frame_is_the_drawing(films: ImageTasks) -> None:
    assert films.event_shape == (1, 2, 12, 12)
    every = films.pixels(range(films.images))[:, 0]
    assert (every.diff(dim=1) >= 0).all()
    assert (every.flatten(2).sum(-1).diff(dim=1) > 0).float().mean() > 0.9, "films stand still"
    glyphs = [each for each in split_glyphs("validation") if each.name == films.class_names[3]]
    drawings = hershey_drawings(glyphs, 0, 8)
    (own,) = drawings.values()
    expected = {image(strokes, 12).tobytes() for strokes in own}
    assert {film[-1].bool().numpy().tobytes() for film in every[films.labels == 3]} <= expected


def test_classes_are_glyphs_and_splits_those_of_pens(films: ImageTasks) -> None:
    assert films.group_noun == "font"
    assert set(films.class_names) <= {glyph.name for glyph in split_glyphs("validation")}
    assert films.class_size.min() >= 2
    assert films.ink


def packed(*films: NDArray[Any]) -> NDArray[np.uint8]:
    return np.packbits(np.stack(films).reshape(len(films), -1).astype(bool), axis=1)


def test_equal_films_stand_once_and_in_the_last_split_alone() -> None:
    one, two, three, four = (np.eye(4)[: n + 1].sum(0)[None].repeat(2, 0) for n in (0, 1, 2, 2))
    four = np.roll(three, 1)
    none = np.zeros_like(one)
    held = {
        "films": packed(one, two, one, three, four, two, one, none, three, four),
        "labels": np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2]),
        "names": np.frombuffer(b'["a", "b", "c"]', dtype=np.uint8),
    }
    split = {"train": {"A": ["a"]}, "validation": {"B": ["b"]}, "test": {"C": ["c"]}}
    chosen = _of_splits(held, split, 8)
    assert np.array_equal(chosen["test"].films["c"], packed(one, three, four))  # without the one that has no ink
    assert chosen["validation"].films == {}, "of b one film is left, which is no support and query"
    assert np.array_equal(chosen["validation"].left_out, ["b"] * 3)
    assert chosen["train"].left_out == ["a"] * 3


def test_omniglots_strokes(data_root: Any) -> None:
    """Real strokes, of alphabets as in pens."""
    options: dict[str, Any] = {"corpus": "omniglot", "size": 8, "frames": 2, "drawings": 2}
    tasks = [TASKS["films"](split=split, data_root=data_root, **options) for split in SPLITS]
    assert [task.classes for task in tasks] == [136, 17, 89]
    assert "Tagalog" in tasks[1].group_names
    assert not set(tasks[0].group_names) & set(tasks[2].group_names)
    assert tasks[0].group_noun == "alphabet"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"corpus": "quickdraw"}, ValueError, "corpus='quickdraw'; give one of hershey, omniglot"),
        ({"size": 3}, ValueError, "size=3; give at least 4"),
        ({"frames": 0}, ValueError, "frames=0; give at least 1"),
        ({"drawings": 1}, ValueError, "drawings=1; give at least 2"),
        ({"split": "dev"}, ValueError, "split='dev' is not a split of films"),
        ({"corpus": "omniglot", "data_root": "/nowhere"}, DataError, "/nowhere"),
    ],
    ids=str,
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TASKS["films"](**options)


def test_a_support_is_other_films_of_the_same_glyph(films: ImageTasks) -> None:
    episode = films.episode(0, tasks=8, shots=1, queries=1)
    assert episode.support.shape == (1, 8, 1, 2, 12, 12)
    assert not torch.equal(episode.support, episode.query)
