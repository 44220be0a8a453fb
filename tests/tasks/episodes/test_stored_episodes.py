"""The fixed evaluation sets: every image a query equally often, nested supports, damage noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metadensity.files import read_arrays, write_arrays
from tasks import DataError, ImageTasks, StoredEpisodes

Make = Callable[..., ImageTasks]


@given(
    sizes=st.lists(st.integers(4, 9), min_size=1, max_size=4),
    queries=st.integers(1, 4),
    draws=st.integers(1, 3),
    data=st.data(),
)
def test_every_image_is_a_query_equally_often_and_never_its_own_support(
    make_tasks: Make, sizes: list[int], queries: int, draws: int, data: st.DataObject
) -> None:
    task = make_tasks(sizes)
    shots = data.draw(st.integers(0, min(sizes) - queries))
    episodes = StoredEpisodes.build(task, shots, queries, draws)
    asked = episodes.query_ids[episodes.query_ids >= 0]
    assert (np.bincount(asked, minlength=task.images) == draws).all()
    for number, support, query in zip(episodes.class_ids, episodes.support_ids, episodes.query_ids, strict=True):
        both = [*support.tolist(), *query[query >= 0].tolist()]
        assert len(set(both)) == len(both)
        assert (task.labels[both] == number).all()
        assert len(support) == shots


def test_batches_hold_the_set_in_one_order_for_every_number_of_shots(make_tasks: Make) -> None:
    task = make_tasks([7, 9, 8])
    episodes = StoredEpisodes.build(task, [1, 2, 4], 3, draws=2)
    by_shots = {shots: list(episodes.episodes(task, shots, 4)) for shots in (0, 1, 2, 4)}
    for shots, batches in by_shots.items():
        assert sum(batch.tasks for batch in batches) == len(episodes)
        assert max(batch.tasks for batch in batches) == 4
        for batch, most in zip(batches, by_shots[4], strict=True):
            assert batch.shots == shots
            assert torch.equal(batch.query, most.query)
            assert torch.equal(batch.support, most.support[:shots])
            assert batch.class_ids is not None
            assert batch.group_ids is not None
            assert batch.support_ids is not None
            assert batch.query_ids is not None
            assert torch.equal(task.pixels(batch.query_ids), batch.query)
            assert torch.equal(task.pixels(batch.support_ids), batch.support)
            assert np.array_equal(task.class_group[batch.class_ids.numpy()], batch.group_ids.numpy())
    assert sum(batch.query.shape[0] * batch.tasks for batch in by_shots[0]) == 2 * task.images


def test_other_counts_give_the_same_queries_and_nested_supports(make_tasks: Make) -> None:
    task = make_tasks([8, 9])
    small, large = StoredEpisodes.build(task, 2, 3), StoredEpisodes.build(task, [1, 5], 3)
    assert np.array_equal(small.query_ids, large.query_ids)
    assert np.array_equal(small.support_ids, large.support_ids[:, :2])
    assert small.hash != large.hash
    assert StoredEpisodes.build(task, 2, 3).hash == small.hash
    assert StoredEpisodes.build(task, 2, 3, seed=1).hash != small.hash
    # The seed of the task is for its own episodes, not for this set.
    assert StoredEpisodes.build(make_tasks([8, 9], seed=5), 2, 3).hash == small.hash


def test_draws_and_classes_are_permuted_differently(make_tasks: Make) -> None:
    task = make_tasks([9, 9])
    episodes = StoredEpisodes.build(task, 1, 9 - 1, draws=2)
    by_class = [episodes.query_ids[episodes.class_ids == number] - 9 * number for number in (0, 1)]
    # The first block, as later ones are padded.
    assert not np.array_equal(by_class[0][0], by_class[1][0])
    assert not np.array_equal(by_class[0][0], by_class[0][2])


@pytest.mark.parametrize(("limit", "episodes", "classes"), [(6, 6, 6), (17, 12, 6), (3, 3, 3), (1, 1, 1), (999, 18, 6)])
def test_limit_takes_equally_many_of_each_class(make_tasks: Make, limit: int, episodes: int, classes: int) -> None:
    task = make_tasks([6, 8, 6, 7, 6, 6])
    whole = StoredEpisodes.build(task, 2, 2)
    part = StoredEpisodes.build(task, 2, 2, limit=limit)
    assert len(part) == episodes
    assert set(np.bincount(part.class_ids, minlength=6)) <= {0, episodes // classes}
    assert len(set(part.class_ids.tolist())) == classes
    kept = {tuple(row) for row in part.query_ids.tolist()}
    assert kept <= {tuple(row) for row in whole.query_ids.tolist()}


def test_few_classes_are_spread_over_the_groups(make_tasks: Make) -> None:
    task = make_tasks([5] * 12)
    part = StoredEpisodes.build(task, 2, 2, limit=3)
    assert task.class_group[part.class_ids].tolist() == [0, 2, 4]


def test_saved_sets_come_back(make_tasks: Make, tmp_path: Path) -> None:
    task = make_tasks([7, 9])
    saved = StoredEpisodes.build(task, 3, 2)
    saved.save(tmp_path / "deep" / "set.npz")
    loaded = StoredEpisodes.load(tmp_path / "deep" / "set.npz", task)
    assert loaded.hash == saved.hash
    assert (loaded.name, loaded.split, loaded.fingerprint) == (saved.name, saved.split, saved.fingerprint)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["set.npz"]
    first, again = next(saved.episodes(task, 3, 5)), next(loaded.episodes(task, 3, 5))
    assert torch.equal(first.support, again.support)
    assert torch.equal(first.query, again.query)


def test_a_damaged_file_is_refused(make_tasks: Make, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    StoredEpisodes.build(make_tasks([7, 9]), 3, 2).save(path)
    whole = path.read_bytes()
    ids = bytearray(whole)
    ids[len(whole) // 2] ^= 1
    for damaged in (whole[: len(whole) // 2], b"", b"no archive", bytes(ids)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"set\.npz is damaged .*Build the episode set anew"):
            StoredEpisodes.load(path)
    with pytest.raises(DataError, match=r"there is no episode set at .*absent\.npz"):
        StoredEpisodes.load(tmp_path / "absent.npz")


def test_a_file_that_was_edited_or_is_something_else_is_refused(make_tasks: Make, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    StoredEpisodes.build(make_tasks([7, 9]), 3, 2).save(path)
    arrays, head = read_arrays(path)
    arrays["query_ids"][0, 0] += 1
    write_arrays(path, arrays, head)
    with pytest.raises(DataError, match=r"is damaged: it hashes to"):
        StoredEpisodes.load(path)
    write_arrays(path, arrays, {"kind": "other"})
    with pytest.raises(DataError, match=r"is no episode set that this version reads"):
        StoredEpisodes.load(path)


def test_another_task_is_refused(make_tasks: Make, tmp_path: Path) -> None:
    task, other = make_tasks([7, 9]), make_tasks([9, 7])
    episodes = StoredEpisodes.build(task, 3, 2)
    episodes.save(tmp_path / "set.npz")
    with pytest.raises(DataError, match=r"built for made, split train, fingerprint .* but was given made"):
        episodes.episodes(other, 1, 1)
    with pytest.raises(DataError, match=r"but was given other"):
        StoredEpisodes.load(tmp_path / "set.npz", make_tasks([7, 9], name="other"))


def test_bad_requests_are_refused(make_tasks: Make) -> None:
    task = make_tasks([7, 9])
    with pytest.raises(ValueError, match=r"shots=5 and queries=3 need 8 different images, but class 'class 0'"):
        StoredEpisodes.build(task, [1, 5], 3)
    with pytest.raises(ValueError, match=r"shots is empty"):
        StoredEpisodes.build(task, [], 3)
    for name in ("queries", "draws", "limit"):
        with pytest.raises(ValueError, match=rf"{name}=0; give at least 1"):
            StoredEpisodes.build(task, **{"shots": 1, "queries": 1, name: 0})
    episodes = StoredEpisodes.build(task, 2, 2)
    with pytest.raises(ValueError, match=r"shots=3, but the episode set has 2 supports an episode; ask for at most 2"):
        episodes.episodes(task, 3, 1)
    with pytest.raises(ValueError, match=r"tasks_per_batch=0; give at least 1"):
        episodes.episodes(task, 1, 0)
