"""Fixed episodes of tasks that draw their images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tasks import TASKS, DataError, GeneratedEpisodes, TaskDistribution


def make(**options: Any) -> TaskDistribution:
    return TASKS["templates"](**{"split": "test", "classes": 8, "size": 4, **options})


def test_batches_do_not_change_the_episodes() -> None:
    task = make()
    chosen = GeneratedEpisodes.build(task, [0, 1, 4], queries=2, count=7, first=3)
    whole = next(chosen.episodes(task, 4, tasks_per_batch=100))
    assert (whole.tasks, whole.shots, whole.queries, len(chosen)) == (7, 4, 2, 7)
    for size, shots in ((1, 4), (3, 1), (7, 0)):
        parts = list(chosen.episodes(task, shots, size))
        assert [part.tasks for part in parts] == [size] * (7 // size) + ([7 % size] if 7 % size else [])
        nested = whole.with_shots(shots)
        for name, axis in (("support", 1), ("query", 1), ("class_ids", 0), ("support_ids", 1), ("query_ids", 1)):
            joined = torch.cat([getattr(part, name) for part in parts], axis)
            assert torch.equal(joined, getattr(nested, name)), name
    assert torch.equal(whole.query[:, 2:3], task.episode(5, 1, 4, 2).query)


def test_the_hash_tells_sets_apart() -> None:
    build = GeneratedEpisodes.build
    task = make()
    chosen = build(task, [0, 4], 2, 7)
    assert chosen.hash == build(make(), (4,), 2, 7).hash
    others = [
        build(task, 3, 2, 7),
        build(task, 4, 1, 7),
        build(task, 4, 2, 8),
        build(task, 4, 2, 7, first=1),
        build(make(seed=1), 4, 2, 7),
        build(make(split="validation"), 4, 2, 7),
        build(make(flip=0.1), 4, 2, 7),
    ]
    assert len({chosen.hash, *(other.hash for other in others)}) == 8


def test_it_serves_any_task() -> None:
    task = TASKS["digits"](split="test")
    chosen = GeneratedEpisodes.build(task, 2, queries=1, count=3)
    assert next(chosen.episodes(task, 1, 3)).support.shape == (1, 3, 1, 8, 8)


def test_bad_input_is_named() -> None:
    task = make()
    chosen = GeneratedEpisodes.build(task, 2, queries=1, count=3)
    for other in (make(seed=1), make(split="train"), make(flip=0.2)):
        with pytest.raises(DataError, match=r"was built for templates, split test, seed 0.*or build the range anew"):
            chosen.episodes(other, 1, 1)
    with pytest.raises(ValueError, match=r"shots=3, but the episode range has 2 supports"):
        chosen.episodes(task, 3, 1)
    with pytest.raises(ValueError, match=r"tasks_per_batch=0; give at least 1"):
        chosen.episodes(task, 1, 0)
    with pytest.raises(ValueError, match=r"shots is empty"):
        GeneratedEpisodes.build(task, [], 1, 1)
    for name, arguments in (("shots", (-1, 1, 1)), ("queries", (1, 0, 1)), ("count", (1, 1, 0))):
        with pytest.raises(ValueError, match=rf"{name}="):
            GeneratedEpisodes.build(task, *arguments)
    with pytest.raises(ValueError, match=r"the last index="):
        GeneratedEpisodes.build(task, 1, 1, count=2, first=2**64 - 1)
