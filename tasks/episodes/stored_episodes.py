"""Episodes as image numbers, to evaluate on: every image of a split is a query equally often."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from metadensity.checks import require_count, require_uint64
from metadensity.episode import Episode
from metadensity.files import DamagedFileError, read_arrays, write_arrays
from tasks.checks import most_shots, require_batches
from tasks.data.roots import DataError
from tasks.images import ImageTasks, Ints

# The second half of the random key; ImageTasks.episode has the index there.
_STREAM = 2**64 - 1


@dataclass(frozen=True, eq=False)
class StoredEpisodes:
    """Episodes as image numbers, one row each; build one with ``StoredEpisodes.build``.

    name, split, fingerprint: of the task distribution that the numbers refer to.
    class_ids: ``(episodes,)``. support_ids: ``(episodes, most shots)``; s shots are the first s of them.
    query_ids: ``(episodes, queries)``, -1 after the last query of an episode that has fewer.
    All int64. Classes take turns, so that the first episodes cover as many classes as they can.
    """

    name: str
    split: str
    fingerprint: str
    class_ids: Ints
    support_ids: Ints
    query_ids: Ints

    @staticmethod
    def build(
        task: ImageTasks,
        shots: int | Sequence[int],
        queries: int,
        draws: int = 1,
        seed: int = 0,
        limit: int | None = None,
    ) -> StoredEpisodes:
        """The set for ``task`` in which every image is a query ``draws`` times, with up to ``max(shots)`` supports.

        For each class and draw, the images are permuted and cut into blocks of ``queries``. Each block is
        the queries of one episode, and its supports are drawn from the rest of the class. The last block of a
        class is shorter where its size is no multiple of ``queries``.

        limit: for quick evaluations, at most so many episodes: the same number of each class, its first
        ones; or, where there are more classes than that, one of each of ``limit`` classes spaced evenly in
        their order (which is by group).

        The queries depend neither on ``shots`` nor on ``limit``, and fewer shots are the first of more.
        Raises ValueError for a count out of range, or where a class is too small.
        """
        most = most_shots(shots)
        queries = require_count("queries", queries, 1)
        draws = require_count("draws", draws, 1)
        seed = require_uint64("seed", seed)
        task.require_room(most, queries)
        rows = [row for number in range(task.classes) for row in _of_class(task, number, most, queries, draws, seed)]
        ranks, classes, supports, padded = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
        order = np.lexsort((classes, ranks))
        if limit is not None:
            order = order[_within(ranks[order], classes[order], task.classes, require_count("limit", limit, 1))]
        return StoredEpisodes(
            *(task.name, task.split, task.fingerprint),
            *(classes[order], supports.reshape(len(rows), most)[order], padded[order]),
        )

    def __len__(self) -> int:
        return len(self.class_ids)

    @property
    def max_shots(self) -> int:
        """The most supports that an episode can be given."""
        return self.support_ids.shape[1]

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, over the task's name, split and fingerprint, and all numbers."""
        digest = hashlib.sha256("\n".join([self.name, self.split, self.fingerprint]).encode())
        for numbers in (self.class_ids, self.support_ids, self.query_ids):
            digest.update(f"{numbers.shape}".encode() + numbers.astype("<i8").tobytes())
        return digest.hexdigest()

    def episodes(self, task: ImageTasks, shots: int, tasks_per_batch: int) -> Iterator[Episode]:
        """All episodes with ``shots`` supports each, in batches of at most ``tasks_per_batch``.

        The order and the queries are the same for every ``shots``. Episodes with fewer queries than the
        others come last, in batches of their own.

        Raises DataError where ``task`` is not the one the set was built for, ValueError for a count out of range.
        """
        self.require_task(task)
        shots, size = require_batches("the episode set", shots, self.max_shots, tasks_per_batch)
        return self._batches(task, shots, size)

    def _batches(self, task: ImageTasks, shots: int, size: int) -> Iterator[Episode]:
        counts = (self.query_ids >= 0).sum(axis=1)
        for queries in sorted(set(counts.tolist()), reverse=True):
            rows = np.flatnonzero(counts == queries)
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                support, query = self.support_ids[batch, :shots].T, self.query_ids[batch, :queries].T
                classes = self.class_ids[batch]
                yield Episode(
                    support=task.pixels(support),
                    query=task.pixels(query),
                    class_ids=torch.from_numpy(classes),
                    group_ids=torch.from_numpy(task.class_group[classes]),
                    support_ids=torch.from_numpy(support.copy()),
                    query_ids=torch.from_numpy(query.copy()),
                    support_lengths=task.support_lengths(support),
                    query_lengths=task.lengths(query),
                )

    def require_task(self, task: ImageTasks) -> None:
        """Raise DataError unless ``task`` holds the images that the set's numbers refer to."""
        if (task.name, task.split, task.fingerprint) != (self.name, self.split, self.fingerprint):
            raise DataError(
                f"this episode set was built for {self.name}, split {self.split}, fingerprint "
                f"{self.fingerprint[:12]}, but was given {task.name}, split {task.split}, fingerprint "
                f"{task.fingerprint[:12]}. Give the task with the same options, or build the set anew."
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set to a ``.npz`` file, with its hash."""
        arrays = {"class_ids": self.class_ids, "support_ids": self.support_ids, "query_ids": self.query_ids}
        head = {"name": self.name, "split": self.split, "fingerprint": self.fingerprint, "hash": self.hash}
        write_arrays(Path(path), arrays, {"kind": "episode set", "version": 1, **head})

    @staticmethod
    def load(path: str | os.PathLike[str], task: ImageTasks | None = None) -> StoredEpisodes:
        """Read what ``save`` wrote; given ``task``, also check that it is the right one.

        Raises DataError where the file is missing, damaged, no episode set, or of another task.
        """
        try:
            arrays, head = read_arrays(Path(path))
        except FileNotFoundError:
            raise DataError(f"there is no episode set at {path}. Build one and save it there.") from None
        except DamagedFileError as problem:
            raise DataError(f"{problem} Build the episode set anew.") from problem
        if head.get("kind") != "episode set" or head.get("version") != 1:
            raise DataError(f"{path} is no episode set that this version reads. Build the episode set anew.")
        loaded = StoredEpisodes(
            name=head["name"],
            split=head["split"],
            fingerprint=head["fingerprint"],
            class_ids=arrays["class_ids"],
            support_ids=arrays["support_ids"],
            query_ids=arrays["query_ids"],
        )
        if loaded.hash != head["hash"]:
            raise DataError(f"{path} is damaged: it hashes to {loaded.hash}, not {head['hash']}. Build the set anew.")
        if task is not None:
            loaded.require_task(task)
        return loaded


def _of_class(
    task: ImageTasks, number: int, shots: int, queries: int, draws: int, seed: int
) -> Iterator[tuple[int, int, Ints, Ints]]:
    """Rank within the class, class, supports, padded queries of each episode of a class."""
    start, size = int(task.class_start[number]), int(task.class_size[number])
    rank = 0
    for draw in range(draws):
        # Each class and draw has a stream of its own, by the counter.
        key = np.array([seed, _STREAM], dtype=np.uint64)
        random = np.random.Generator(np.random.Philox(key=key, counter=(draw << 192) + (number << 128)))
        order = start + random.permutation(size)
        for begin in range(0, size, queries):
            block = order[begin : begin + queries]
            rest = np.concatenate([order[:begin], order[begin + queries :]])
            padded = np.full(queries, -1)
            padded[: len(block)] = block
            yield rank, number, random.permutation(rest)[:shots], padded
            rank += 1


def _within(ranks: Ints, classes: Ints, count: int, limit: int) -> NDArray[np.bool_]:
    """Which episodes stay under the limit."""
    if limit < count:
        kept = np.arange(limit) * count // limit
        return (ranks == 0) & np.isin(classes, kept)
    fewest = int(np.bincount(classes).min())
    return ranks < min(limit // count, fewest)
