"""Intervals of results on images that come again: they cover what they speak of, and more draws narrow none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metadensity.evaluation.classification import by_cluster, classification
from metadensity.evaluation.intervals import bounded_mean, clustered_mean
from metadensity.evaluation.nway import NWayEpisodes, stack_nway

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


def drawn(centres: Floats, images: int, ways: int, episodes: int, queries: int, rng: np.random.Generator) -> tuple:
    """Episodes on ``images`` numbers of each class, around its centre: whether the nearest support is of the class.

    Returns ``(episodes, ways * queries)`` rights, and the classes and the images that they hang on.
    """
    pixels = centres[:, None] + rng.normal(size=(len(centres), images))
    classes = np.argsort(rng.random((episodes, len(centres))), 1)[:, :ways]
    order = np.argsort(rng.random((episodes, ways, images)), 2)[..., : queries + 1]
    value = pixels[classes[..., None], order]
    number = classes[..., None] * images + order
    support, query = value[..., 0], value[..., 1:].reshape(episodes, -1)
    nearest = np.abs(query[..., None] - support[:, None]).argmin(-1)
    right = (nearest == np.repeat(np.arange(ways), queries)).astype(float)
    given = np.broadcast_to(number[:, None, :, 0], (*query.shape, ways))
    members = np.concatenate([number[..., 1:].reshape(episodes, -1, 1), given], 2)
    return right, classes, members


def few_classes(rng: np.random.Generator, images: int = 14, episodes: int = 200) -> tuple[Floats, Ids, Ids]:
    """Two classes of 14 images, as somebody's own folder has."""
    right, _, members = drawn(np.array([-0.3, 0.3]), images, 2, episodes, 5, rng)
    return right, members, np.arange(episodes)


def many_classes(rng: np.random.Generator, classes: int = 24, episodes: int = 200) -> tuple[Floats, Ids, Ids]:
    """Classes that are drawn as well, some of which are alike."""
    right, chosen, _ = drawn(1.5 * rng.normal(size=classes), 20, 3, episodes, 3, rng)
    return right, chosen, np.arange(episodes)


def truth(case: Callable[..., tuple[Floats, Ids, Ids]]) -> float:
    """The mean over further images, or further classes."""
    rng = np.random.default_rng(1)
    if case is few_classes:
        return float(case(rng, images=500, episodes=8000)[0].mean())
    return float(np.mean([case(rng, episodes=50)[0].mean() for _ in range(1000)]))


@pytest.mark.parametrize("case", [few_classes, many_classes])
def test_coverage(case: Callable[..., tuple[Floats, Ids, Ids]]) -> None:
    """Of 200 intervals at 95 %, at least 90 % hold the truth: one that does its duty fails here twice in 1,000.

    Taken over episodes, as if each were of images of its own, fewer than 75 % do.
    """
    exact, held, naive, rng = truth(case), 0, 0, np.random.default_rng(0)
    for _ in range(200):
        right, ids, episodes = case(rng)
        low, high = bounded_mean(*by_cluster(right, ids))[1]
        held += low <= exact <= high
        low, high = bounded_mean(*by_cluster(right, episodes))[1]
        naive += low <= exact <= high
    assert held >= 180, held
    assert naive < 150, naive


def test_more_draws_of_the_same_images_do_not_narrow_it() -> None:
    """Ten times as many episodes of 28 images: the interval stays; that over episodes shrinks by root ten."""
    widths = {}
    for episodes in (200, 2000):
        right, ids, each = few_classes(np.random.default_rng(0), episodes=episodes)
        widths[episodes] = [np.diff(clustered_mean(*by_cluster(right, of))[1])[0] for of in (ids, each)]
    assert widths[2000][0] > 0.8 * widths[200][0]
    assert widths[2000][1] < 0.4 * widths[200][1]


def test_values_of_clusters_of_their_own_are_independent_values() -> None:
    """Where nothing comes twice, naming what a value hangs on changes the interval by the quantile alone."""
    values = np.random.default_rng(0).normal(size=300)
    mean, (low, high) = clustered_mean(values, np.arange(900).reshape(300, 3))
    half = clustered_mean(values, np.arange(300))[1][1] - mean
    assert (high - mean) / half == pytest.approx(1, abs=0.02)
    assert mean - low == pytest.approx(high - mean)
    same = np.repeat(np.arange(300)[:, None], 3, 1)  # named three times
    assert clustered_mean(values, same)[1][1] - mean == pytest.approx(half, rel=0.01)


def test_one_cluster_in_all_values_has_no_interval() -> None:
    ids = np.stack([np.zeros(5, np.int64), np.arange(1, 6)], 1)
    assert clustered_mean(np.arange(5.0), ids) == (2.0, (-np.inf, np.inf))
    assert bounded_mean(np.ones(5), ids) == (1.0, (pytest.approx(0.05 ** (1 / 3)), 1.0))


def episodes(classes: list[list[int]], images: list[list[int]], ways: int) -> NWayEpisodes:
    """Episodes of one shot and one query a class; images are told by their level."""
    pixels = torch.tensor(images, dtype=torch.uint8)[:, :, None, None]  # (episodes, 2 * ways, 1, 1)
    label = torch.arange(ways).expand(len(images), ways)
    known = None if not classes else torch.tensor(classes)
    return NWayEpisodes(pixels[:, :ways, None], pixels[:, ways:], label, known)


def test_what_results_hang_on() -> None:
    """Classes where there are enough of them; else images, by their pixels, as in a file that names none."""
    found, noun = episodes([[0, 1], [2, 3], [3, 0]], [[1, 2, 3, 4], [5, 6, 7, 8], [9, 2, 3, 1]], 2).dependence()
    assert noun == "classes"
    assert found.tolist() == [[0, 1], [2, 3], [3, 0]]
    for classes in ([], [[0, 1], [1, 0], [2, 1]]):
        ids, noun = episodes(classes, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 2, 3, 1]], 2).dependence()
        assert noun == "images"
        assert ids.shape == (3, 2, 3)
        number = {1: ids[0, 0, 1], 2: ids[0, 0, 2], 3: ids[0, 0, 0]}
        assert ids[2].tolist() == [[number[3], ids[2, 0, 1], number[2]], [number[1], ids[2, 0, 1], number[2]]]


def test_classes_are_kept(tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    one = episodes([[0, 1]], [[1, 2, 3, 4]], 2)
    unknown = episodes([], [[1, 2, 3, 4]], 2)
    for number, made in enumerate((one, unknown)):
        made.save(tmp_path / f"{number}.npz")
        again = NWayEpisodes.load(tmp_path / f"{number}.npz")
        assert again.hash == made.hash == one.hash
        assert (again.classes is None) == (made.classes is None)
    assert stack_nway([one, one]).classes.tolist() == [[0, 1], [0, 1]]  # type: ignore[union-attr]
    assert stack_nway([one, unknown]).classes is None
    assert one[:1].classes is not None
    with pytest.raises(ValueError, match=r"classes has shape \(1, 3\); with support"):
        episodes([[0, 1, 2]], [[1, 2, 3, 4]], 2)


def test_a_classification_says_what_its_intervals_are_over() -> None:
    log_probs = np.log(np.random.default_rng(0).random((6, 4, 2)))
    label = np.zeros((6, 4), np.int64)
    assert classification(log_probs, label).over == (6, "episodes")
    ids = np.arange(12).reshape(6, 2) % 7
    assert classification(log_probs, label, dependence=(ids, "classes")).over == (7, "classes")
