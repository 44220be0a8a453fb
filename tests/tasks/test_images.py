"""Episodes from images in memory: purity, disjointness, nesting, uniformity, and what is refused."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from metadensity.episode import Episode
from tasks import ImageTasks

Make = Callable[..., ImageTasks]
SIZES = st.lists(st.integers(3, 9), min_size=1, max_size=6)


def equal(first: Episode, second: Episode) -> bool:
    """Every field equal."""
    names = ("support", "query", "class_ids", "group_ids", "support_ids", "query_ids")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in names)


def build(sizes: list[int], **options: Any) -> ImageTasks:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    pixels = np.random.default_rng(1).integers(0, 2, (len(labels), 1, 3, 5), dtype=np.uint8)
    arguments: dict[str, Any] = {
        "images": pixels,
        "labels": labels,
        "class_names": [str(number) for number in range(len(sizes))],
        "group_names": ["all"],
        "class_group": [0] * len(sizes),
        "event_shape": (1, 3, 5),
        "levels": 2,
        "recipe": {},
    }
    seed = options.pop("seed", 0)
    return ImageTasks("built", "train", seed, **{**arguments, **options})


@given(sizes=SIZES, index=st.integers(0, 2**64 - 1), tasks=st.integers(1, 5), data=st.data())
def test_support_and_query_are_different_images_of_one_class(
    sizes: list[int], index: int, tasks: int, data: st.DataObject
) -> None:
    # Counts are drawn near the size of the smallest class, where an error by one would show.
    source = build(sizes)
    queries = data.draw(st.integers(1, min(sizes)))
    shots = data.draw(st.integers(max(0, min(sizes) - queries - 1), min(sizes) - queries))
    episode = source.episode(index, tasks, shots, queries)
    assert episode.support.shape == (shots, tasks, 1, 3, 5)
    assert episode.query.shape == (queries, tasks, 1, 3, 5)
    assert episode.support.dtype == episode.query.dtype == torch.uint8
    assert episode.support_ids is not None
    assert episode.query_ids is not None
    assert episode.class_ids is not None
    ids = torch.cat([episode.query_ids, episode.support_ids]).numpy()
    for task in range(tasks):
        assert len(set(ids[:, task].tolist())) == shots + queries
    assert (source.labels[ids] == episode.class_ids.numpy()).all()
    assert torch.equal(source.pixels(episode.support_ids), episode.support)
    assert torch.equal(source.pixels(episode.query_ids), episode.query)
    assert episode.group_ids is not None
    assert np.array_equal(source.class_group[episode.class_ids.numpy()], episode.group_ids.numpy())


@given(sizes=SIZES, extra=st.integers(1, 3), queries=st.integers(1, 9))
def test_more_images_than_a_class_has_are_refused(sizes: list[int], extra: int, queries: int) -> None:
    least = min(sizes)
    queries = min(queries, least)
    message = rf"class '{sizes.index(least)}' of built \(train\) has {least}\. Ask for at most {least} together"
    with pytest.raises(ValueError, match=message):
        build(sizes).episode(0, 1, least - queries + extra, queries)


@given(sizes=SIZES, index=st.integers(0, 2**64 - 1), data=st.data())
def test_fewer_shots_are_the_first_of_more_and_queries_stay(sizes: list[int], index: int, data: st.DataObject) -> None:
    source = build(sizes)
    queries = data.draw(st.integers(1, min(sizes) - 1))
    most = min(sizes) - queries
    fewer = data.draw(st.integers(0, most))
    large, small = source.episode(index, 4, most, queries), source.episode(index, 4, fewer, queries)
    assert equal(large.with_shots(fewer), small)


def test_a_task_does_not_depend_on_the_number_of_tasks(make_tasks: Make) -> None:
    source = make_tasks([5, 6, 7])
    many, few = source.episode(3, 8, 2, 2), source.episode(3, 5, 2, 2)
    assert torch.equal(many.support[:, :5], few.support)
    assert torch.equal(many.query[:, :5], few.query)


def test_episodes_are_a_pure_function_of_seed_and_index(make_tasks: Make) -> None:
    one, other = make_tasks([5, 6, 7], seed=3), make_tasks([5, 6, 7], seed=3)
    forwards = [one.episode(index, 4, 2, 1) for index in range(20)]
    backwards = [other.episode(index, 4, 2, 1) for index in reversed(range(20))]
    assert all(equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert not equal(one.episode(0, 4, 2, 1), one.episode(1, 4, 2, 1))
    assert not equal(one.episode(0, 4, 2, 1), make_tasks([5, 6, 7], seed=4).episode(0, 4, 2, 1))
    # Neither swapped nor added up: (3, 5), (5, 3) and (4, 4) are three episodes.
    assert not equal(one.episode(5, 4, 2, 1), make_tasks([5, 6, 7], seed=5).episode(3, 4, 2, 1))
    assert not equal(one.episode(5, 4, 2, 1), make_tasks([5, 6, 7], seed=4).episode(4, 4, 2, 1))


def test_global_random_states_are_neither_read_nor_changed(make_tasks: Make) -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # type: ignore[index]
    first = make_tasks([5, 6]).episode(0, 4, 2, 1)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), before[2])
    torch.manual_seed(2)
    assert equal(first, make_tasks([5, 6]).episode(0, 4, 2, 1))


def test_a_changed_episode_leaves_the_images_alone(make_tasks: Make) -> None:
    for levels in (2, 17):
        source = make_tasks([5, 6], levels=levels)
        before = source.fingerprint, source.pixels(range(source.images))
        source.episode(0, 4, 2, 1).query.fill_(1)
        source.pixels([0]).fill_(1)
        assert torch.equal(before[1], source.pixels(range(source.images)))


def test_classes_images_and_pairs_are_drawn_uniformly(make_tasks: Make) -> None:
    # Chi-square tests at 1e-4 each: three of them raise a false alarm once in some 3,000 changes of this test.
    sizes = [4, 7, 5]
    source = make_tasks(sizes)
    episodes = [source.episode(index, 32, 1, 1) for index in range(400)]
    classes = np.concatenate([episode.class_ids for episode in episodes])  # type: ignore[list-item]
    assert chisquare(np.bincount(classes, minlength=3)).pvalue > 1e-4
    query, support = (
        np.concatenate([getattr(episode, name).numpy()[0] for episode in episodes]) - source.class_start[classes]
        for name in ("query_ids", "support_ids")
    )
    for number, size in ((0, 4), (1, 7)):
        mine = classes == number
        pairs = np.zeros((size, size), dtype=int)
        np.add.at(pairs, (query[mine], support[mine]), 1)
        assert not pairs.diagonal().any()
        assert chisquare(pairs[~np.eye(size, dtype=bool)]).pvalue > 1e-4


def test_consecutive_tasks_are_independent(make_tasks: Make) -> None:
    # One chi-square test at 1e-4, over the classes of neighbours within a batch and between batches.
    source = make_tasks([3, 3, 3, 3])
    classes = np.concatenate([source.episode(index, 8, 0, 1).class_ids for index in range(1000)])  # type: ignore[list-item]
    pairs = np.bincount(classes[:-1] * 4 + classes[1:], minlength=16)
    assert chisquare(pairs).pvalue > 1e-4


def test_packed_images_give_the_same_as_plain_ones() -> None:
    sizes = [4, 5]
    plain = build(sizes)
    pixels = plain.pixels(range(plain.images)).numpy()
    packed = build(sizes, images=np.packbits(pixels.reshape(len(pixels), -1), axis=1), packed=True)
    assert packed.fingerprint == plain.fingerprint
    assert equal(packed.episode(1, 3, 2, 2), plain.episode(1, 3, 2, 2))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_pixels_come_back_as_given(levels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, levels, (6, 3, 4, 5), dtype=np.uint8)
    source = build([2, 4], images=pixels, event_shape=(3, 4, 5), levels=levels)
    assert np.array_equal(source.pixels(torch.arange(6)).numpy(), pixels)
    assert source.pixels([[0, 1, 2], [3, 4, 5]]).shape == (2, 3, 3, 4, 5)
    assert source.pixels(np.zeros((0,), dtype=np.int64)).shape == (0, 3, 4, 5)


def test_fingerprint_follows_pixels_and_names_but_not_the_seed() -> None:
    base = build([2, 3])
    pixels = base.pixels(range(5)).numpy()
    assert build([2, 3], seed=9).fingerprint == base.fingerprint
    pixels[4, 0, 2, 4] ^= 1
    others = [
        build([2, 3], images=pixels),
        build([2, 3], class_names=["0", "x"]),
        build([3, 2]),
        build([2, 3], levels=3),
        build([2, 3], images=base.pixels(range(5)).numpy().reshape(5, 1, 5, 3), event_shape=(1, 5, 3)),
    ]
    assert base.fingerprint not in {other.fingerprint for other in others}
    assert len({other.fingerprint for other in others}) == len(others)


def test_episodes_are_fast() -> None:
    # Over 500,000 a second of processor time on a 2020s core; the bound leaves room for slow machines.
    bits = np.random.default_rng(0).integers(0, 256, (29580, 85), dtype=np.uint8)
    sizes = [20] * 1479
    source = build(sizes, images=bits, event_shape=(1, 26, 26), packed=True)
    source.episode(0, 32, 4, 1)
    start = time.process_time()
    for index in range(500):
        source.episode(index, 32, 4, 1)
    assert 500 * 32 / (time.process_time() - start) > 100_000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, 1, 1, 1), ValueError, r"index=-1; give an integer from 0"),
        ((2**64, 1, 1, 1), ValueError, r"index=18446744073709551616; give"),
        ((0.5, 1, 1, 1), TypeError, r"index=0\.5 is a float; give an integer"),
        ((0, 0, 1, 1), ValueError, r"tasks=0; give at least 1"),
        ((0, 1, -1, 1), ValueError, r"shots=-1; give at least 0"),
        ((0, 1, 1, 0), ValueError, r"queries=0; give at least 1"),
        ((0, 1, "2", 1), TypeError, r"shots='2' is a str; give an integer of at least 0"),
    ],
)
def test_bad_requests_are_refused(
    make_tasks: Make, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_tasks([4, 5]).episode(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": -1}, ValueError, r"seed=-1; give an integer from 0 to 2\*\*64 - 1"),
        ({"levels": 1}, ValueError, r"levels=1; .* give 2 to 256"),
        ({"levels": 257}, ValueError, r"levels=257; .* give 2 to 256"),
        ({"event_shape": (15,)}, ValueError, r"event_shape=\(15,\); a task needs \(channels, \*space\)"),
        ({"images": np.zeros((5, 1, 3, 5))}, TypeError, r"images are float64; give uint8"),
        ({"images": np.full((5, 1, 3, 5), 2, np.uint8)}, ValueError, r"images hold 2; with levels=2 pixels end at 1"),
        ({"images": np.zeros((5, 1, 5, 3), np.uint8)}, ValueError, r"need \(5, 1, 3, 5\)"),
        ({"levels": 3, "packed": True}, ValueError, r"only two-level images are held packed"),
        ({"labels": [0, 1, 0, 1, 1]}, ValueError, r"sort the images by class first"),
        ({"labels": [0, 0, 1, 1, 2]}, ValueError, r"labels holds 0 to 2; give indices from 0 to 1"),
        ({"class_names": ["a", "b", "c"], "class_group": [0, 0, 0]}, ValueError, r"class 'c' has no image"),
        ({"class_names": [], "class_group": []}, ValueError, r"no classes; a task distribution needs at least one"),
        ({"class_group": [0, 1]}, ValueError, r"class_group holds 0 to 1; give indices from 0 to 0"),
        ({"class_group": [0]}, ValueError, r"class_group has shape \(1,\); give one of 2"),
    ],
)
def test_bad_images_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build([2, 3], **options)


@pytest.mark.parametrize("ids", [[-1], [5]])
def test_image_numbers_out_of_range_are_refused(ids: list[int]) -> None:
    with pytest.raises(IndexError, match=r"give 0 to 4"):
        build([2, 3]).pixels(ids)


def test_blocks_of_tasks_are_of_one_group_and_of_different_classes() -> None:
    """Groups of 4, 3 and 2 classes: blocks of three are of the first two, equally often."""
    groups = [0, 1, 0, 2, 1, 0, 1, 2, 0]
    source = build([5] * 9, group_names=["a", "b", "c"], class_group=groups)
    seen = []
    for index in range(60):
        episode = source.grouped_episode(index, 7, 2, 1, 3)
        assert equal(episode, source.grouped_episode(index, 7, 2, 1, 3))
        assert episode.class_ids is not None
        assert episode.group_ids is not None
        for begin in (0, 3, 6):
            classes, of = episode.class_ids[begin : begin + 3], episode.group_ids[begin : begin + 3]
            assert len(set(classes.tolist())) == len(classes)
            assert set(of.tolist()) in ({0}, {1})
            seen.append(int(of[0]))
        assert episode.support_ids is not None
        assert episode.query_ids is not None
        ids = torch.cat([episode.query_ids, episode.support_ids]).numpy()
        assert all(len(set(column)) == 3 for column in ids.T.tolist())
        assert (source.labels[ids] == episode.class_ids.numpy()).all()
        assert torch.equal(source.pixels(episode.query_ids), episode.query)
    assert 60 < sum(seen) < 120  # of 180, half of them expected; outside with probability 1e-5
    with pytest.raises(ValueError, match="together=5, but the largest group of the train split of built has 4 classes"):
        source.grouped_episode(0, 5, 1, 1, 5)
