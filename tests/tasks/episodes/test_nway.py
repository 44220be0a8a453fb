"""n-way episodes are pure functions of seed and index; supports and queries are disjoint, supports nested."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks import ImageTasks
from tasks.episodes.nway import draw_nway, eligible_groups

SIZES = 5 + np.arange(12) % 5


def numbered(seed: int = 0) -> ImageTasks:
    """Every pixel of an image is its number; classes of 5 to 9 images in groups of 3, 3 and 6 classes."""
    count = int(SIZES.sum())
    return ImageTasks(
        "numbered",
        "test",
        seed,
        images=np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(2, 2).repeat(2, 3),
        labels=np.repeat(np.arange(12), SIZES),
        class_names=[f"c{number}" for number in range(12)],
        group_names=["a", "b", "c"],
        class_group=[0] * 3 + [1] * 3 + [2] * 6,
        event_shape=(1, 2, 2),
        levels=256,
        recipe={},
    )


def numbers(images: torch.Tensor) -> np.ndarray:
    return images[..., 0, 0, 0].numpy()


def classes(images: torch.Tensor, task: ImageTasks) -> np.ndarray:
    return np.searchsorted(task.class_start, numbers(images), side="right") - 1


@pytest.mark.parametrize("within_group", [False, True])
def test_episodes_are_what_they_say(within_group: bool) -> None:
    task, seen, groups = numbered(), set(), []
    for index in range(300):
        one = draw_nway(task, index, ways=3, shots=2, queries=3, within_group=within_group)
        assert (len(one), one.ways, one.shots, one.queries) == (1, 3, 2, 9)
        ways = classes(one.support, task)[0]
        assert (ways == ways[:, :1]).all()
        assert len(set(ways[:, 0])) == 3
        assert (classes(one.query, task)[0] == ways[one.label[0].numpy(), 0]).all()
        assert one.label.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2]]
        images = [*numbers(one.support).ravel(), *numbers(one.query).ravel()]
        assert len(set(images)) == len(images), "an image is there twice"
        assert len(set(task.class_group[ways[:, 0]])) == 1 or not within_group
        groups.append(task.class_group[ways[0, 0]])
        seen |= set(images)
    assert seen == set(range(int(task.class_size.sum()))), "some images are never drawn"
    if within_group:  # groups weigh the same, whatever their size: 100 each, standard error 8
        assert np.bincount(groups).min() > 70


def test_an_episode_is_a_function_of_seed_and_index() -> None:
    def draw(seed: int, index: int) -> str:
        return draw_nway(numbered(seed), index, 4, 1, 2).hash

    state = np.random.get_state()[1].copy()
    hashes = [draw(seed, index) for seed in (0, 1, 2**64 - 1) for index in (0, 1, 2**64 - 1)]
    assert hashes == [draw(seed, index) for seed in (0, 1, 2**64 - 1) for index in (0, 1, 2**64 - 1)]
    assert len(set(hashes)) == 9
    assert (np.random.get_state()[1] == state).all()


def test_supports_are_nested_and_queries_stay() -> None:
    most = draw_nway(numbered(), 7, 4, 3, 2)
    for shots in range(3):
        fewer = draw_nway(numbered(), 7, 4, shots, 2)
        assert torch.equal(fewer.query, most.query)
        assert torch.equal(fewer.support, most.support[:, :, :shots])


def test_what_cannot_be_drawn_is_named() -> None:
    task = numbered()
    with pytest.raises(ValueError, match=r"ways=13, but the test split of numbered has 12 classes. Ask for at most 12"):
        draw_nway(task, 0, 13, 1, 1)
    with pytest.raises(ValueError, match=r"ways=7 within one group, but the largest .* 6 classes. Ask for at most 6"):
        draw_nway(task, 0, 7, 1, 1, within_group=True)
    with pytest.raises(ValueError, match=r"shots=3 and queries=3 need 6 different images, but class 'c0' .* has 5"):
        draw_nway(task, 0, 2, 3, 3)
    for wrong in ({"ways": 1}, {"shots": -1}, {"queries": 0}, {"index": -1}, {"index": 2**64}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name}={wrong[name]}; give "):
            draw_nway(task, **{"index": 0, "ways": 2, "shots": 1, "queries": 1, **wrong})
    assert [len(group) for group in eligible_groups(task, 4)] == [6]
