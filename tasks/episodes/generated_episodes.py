"""Episodes of tasks that draw their images without end: a range of indices, to evaluate on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from metadensity.checks import require_count, require_uint64
from metadensity.episode import Episode
from tasks.base import TaskDistribution
from tasks.checks import most_shots, require_batches
from tasks.data.roots import DataError


@dataclass(frozen=True, eq=False)
class GeneratedEpisodes:
    """Episodes ``first`` to ``first + count - 1`` of a task distribution, one task each; build one with ``build``.

    Which episodes there are does not depend on how many are batched together. The counterpart of ``StoredEpisodes``:
    see ``FixedEpisodes``.

    name, split, seed, fingerprint: of the task distribution.
    """

    name: str
    split: str
    seed: int
    fingerprint: str
    first: int
    count: int
    max_shots: int
    queries: int

    @staticmethod
    def build(
        task: TaskDistribution, shots: int | Sequence[int], queries: int, count: int, first: int = 0
    ) -> GeneratedEpisodes:
        """``count`` episodes with ``queries`` queries and up to ``max(shots)`` supports.

        The queries do not depend on ``shots``, and fewer shots are the first of more. Raises ValueError for a
        count out of range.
        """
        most = most_shots(shots)
        first, count = require_uint64("first", first), require_count("count", count, 1)
        require_uint64("the last index", first + count - 1)
        return GeneratedEpisodes(
            *(task.name, task.split, task.seed, task.fingerprint, first, count),
            max_shots=most,
            queries=require_count("queries", queries, 1),
        )

    def __len__(self) -> int:
        return self.count

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, over all that determines the episodes."""
        parts = (self.name, self.split, self.seed, self.fingerprint, self.first, self.count, self.max_shots)
        return hashlib.sha256("\n".join(map(str, (*parts, self.queries))).encode()).hexdigest()

    def episodes(self, task: TaskDistribution, shots: int, tasks_per_batch: int) -> Iterator[Episode]:
        """All episodes with ``shots`` supports each, in batches of at most ``tasks_per_batch``.

        The order and the queries are the same for every ``shots``. Raises DataError where ``task`` is not the one
        the range was built for, ValueError for a count out of range.
        """
        self.require_task(task)
        shots, size = require_batches("the episode range", shots, self.max_shots, tasks_per_batch)
        return self._batches(task, shots, size)

    def _batches(self, task: TaskDistribution, shots: int, size: int) -> Iterator[Episode]:
        end = self.first + self.count
        for start in range(self.first, end, size):
            indices = range(start, min(start + size, end))
            yield _joined([task.episode(index, 1, shots, self.queries) for index in indices])

    def require_task(self, task: TaskDistribution) -> None:
        """Raise DataError unless ``task`` is the distribution that the range was built for, with the same seed."""
        mine = (self.name, self.split, self.seed, self.fingerprint)
        theirs = (task.name, task.split, task.seed, task.fingerprint)
        if mine != theirs:
            raise DataError(
                f"this episode range was built for {self.name}, split {self.split}, seed {self.seed}, fingerprint "
                f"{self.fingerprint[:12]}, but was given {task.name}, split {task.split}, seed {task.seed}, "
                f"fingerprint {task.fingerprint[:12]}. Give the task with the same options, or build the range anew."
            )


def _joined(episodes: list[Episode]) -> Episode:
    """Episodes side by side, as one batch of tasks."""
    first = episodes[0]
    axes = {"class_ids": 0, "group_ids": 0}
    axes |= {f"{part}{kind}": 1 for part in ("support", "query") for kind in ("", "_ids", "_lengths")}
    joined = {
        name: torch.cat([getattr(episode, name) for episode in episodes], dim=axis)
        for name, axis in axes.items()
        if getattr(first, name) is not None
    }
    return replace(first, **joined)
