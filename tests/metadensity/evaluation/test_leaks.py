"""The guard against a query in its own support; the leaky source is its negative control."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadensity import Episode, evaluate
from metadensity.evaluation.leaks import DUPLICATES, SupportLeakError
from metadensity.models import SupportMean
from tests.metadensity.toys import Patterns


def leaky(ids: bool) -> Episode:
    """Query 1 of task 2 is support 0 of that task; sizes at which no two images are alike by chance."""
    episode = Patterns(event_shape=(1, 9, 9), noise=0.5).episode(0, tasks=4, shots=2, queries=3)
    assert episode.support_ids is not None
    assert episode.query_ids is not None
    support, numbers = episode.support.clone(), episode.support_ids.clone()
    support[0, 2], numbers[0, 2] = episode.query[1, 2], episode.query_ids[1, 2]
    if not ids:
        return replace(episode, support=support, support_ids=None, query_ids=None)
    return replace(episode, support=support, support_ids=numbers)


MODEL = SupportMean((1, 9, 9), 2)


@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_the_same_image_is_never_let_through(duplicates: str) -> None:
    said = r"1 of 12 queries are in their own support: in task 2 \(class \d+\), image 6 is query 1 and support 0.*Draw"
    with pytest.raises(SupportLeakError, match=said):
        evaluate(MODEL, [leaky(ids=True)], duplicates=duplicates)


def test_the_same_pixels_without_ids_are_refused() -> None:
    said = r"in task 2 \(class \d+\), query 1 and support 0 \(content sha256 [0-9a-f]{12}...\), .*does not say which"
    with pytest.raises(SupportLeakError, match=said):
        evaluate(MODEL, [leaky(ids=False)])


def test_the_support_scored_as_query_is_refused() -> None:
    honest = Patterns(event_shape=(1, 9, 9)).episode(0, tasks=4, shots=2, queries=3)
    with pytest.raises(SupportLeakError, match=r"8 of 8 queries are in their own support"):
        evaluate(MODEL, [replace(honest, query=honest.support, query_ids=honest.support_ids)])
    with pytest.raises(SupportLeakError, match=r"8 of 8 queries have the pixels"):
        evaluate(MODEL, [Episode(honest.support, honest.support)])


def twins() -> Episode:
    """As ``leaky``, but by their ids the two are different images."""
    episode = leaky(ids=False)
    numbers = torch.arange(5 * 4).view(5, 4)
    return replace(episode, support_ids=numbers[:2], query_ids=numbers[2:])


def test_different_images_that_look_the_same_are_scored_and_counted() -> None:
    for duplicates in ("trust_ids", "allow"):
        row = evaluate(MODEL, [twins()], duplicates=duplicates).row(2)
        assert (row.images, row.identical) == (12, 1)
    assert evaluate(MODEL, [twins().with_shots(0)]).row(0).identical == 0
    row = evaluate(MODEL, [leaky(ids=False)], duplicates="allow").row(2)
    assert (row.images, row.identical) == (12, 1)


def test_they_can_be_left_out_or_refused() -> None:
    result = evaluate(MODEL, [twins()], duplicates="drop")
    assert (result.row(2).images, result.row(2).identical) == (11, 1)
    assert 2 * 4 + 4 + 2 not in result.scores[2].query_ids  # the id of query 1 of task 2
    with pytest.raises(SupportLeakError, match=r"duplicates='raise' allows none.*'drop' to leave them out"):
        evaluate(MODEL, [twins()], duplicates="raise")
    with pytest.raises(ValueError, match=r"duplicates='no'; choose one of 'trust_ids', 'raise', 'drop', 'allow'"):
        evaluate(MODEL, [twins()], duplicates="no")


def test_other_tasks_may_hold_the_image() -> None:
    episode = leaky(ids=True)
    assert episode.support_ids is not None
    moved = replace(episode, support=episode.support.roll(1, 1), support_ids=episode.support_ids.roll(1, 1))
    assert evaluate(MODEL, [moved]).row(2).identical == 0
