"""A learn2learn Taskset as a source of episodes for meta-training."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from metadensity.checks import require_count, require_uint64
from metadensity.episode import Episode
from tasks.interop.conversions import episode_from_labelled

_log = logging.getLogger(__name__)


class TasksetSource:
    """What ``metadensity.training.MetaTrainer`` trains on, out of n-way tasks of a Taskset; each class is one task.

    taskset: draws n-way tasks of k images a class; an episode may have shots + queries of at most k.
    levels: of the pixels, see ``tasks.interop.conversions.integer_pixels``. seed: with the index it fixes an episode.
    class_ids: whether the Taskset's labels name the classes, see ``tasks.interop.conversions.episode_from_labelled``.

    An episode is a pure function of (seed, index), though learn2learn draws from Python's ``random``: that is seeded
    for the draw, and afterwards as it was. A Taskset of a fixed number of tasks draws each when it is first asked for,
    so there it also depends on what was asked of it before; give num_tasks=-1, its default, to be free of that.
    """

    def __init__(self, taskset: Any, levels: int = 2, seed: int = 0, class_ids: bool = False) -> None:
        self.taskset = taskset
        self.levels = levels
        self.seed = require_uint64("seed", seed)
        self.class_ids = class_ids
        self._warned = False
        self.event_shape: tuple[int, ...] = tuple(self._drawn(0, 0).event_shape)

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        """Episode number ``index``: n-way tasks side by side until there are ``tasks`` classes; the rest is left out.

        Raises ValueError for a count out of range, or where the Taskset draws fewer images of a class. Logs a warning
        where a query is in its own support.
        """
        index = require_uint64("index", index)
        tasks, queries = require_count("tasks", tasks, 1), require_count("queries", queries, 1)
        shots = require_count("shots", shots, 0)
        parts: list[Episode] = []
        while sum(part.tasks for part in parts) < tasks:
            parts.append(self._drawn(index, len(parts)))
        images = torch.cat([part.query for part in parts], dim=1)[:, :tasks]
        if shots + queries > len(images):
            raise ValueError(
                f"shots={shots} and queries={queries} need {shots + queries} images of a class, but the Taskset draws "
                f"k={len(images)}. Ask for at most {len(images)} together, or draw more."
            )
        # The queries first, so that they do not depend on the number of shots.
        episode = Episode(support=images[queries : queries + shots], query=images[:queries])
        self._warn_of_repeats(episode)
        if not self.class_ids:
            return episode
        ids = [part.class_ids for part in parts if part.class_ids is not None]
        return replace(episode, class_ids=torch.cat(ids)[:tasks])

    def _warn_of_repeats(self, episode: Episode) -> None:
        """Say once where a query is an image of its own support, as of KShots with replacement=True."""
        if self._warned or not episode.shots:
            return
        same = torch.stack([(image == episode.query).flatten(2).all(-1) for image in episode.support]).any(0)
        if count := int(same.sum()):
            self._warned = True
            drawn_twice = any(
                getattr(each, "replacement", False) for each in getattr(self.taskset, "task_transforms", ())
            )
            why = (
                "draws images twice (replacement=True)" if drawn_twice else "draws images twice, or some look the same"
            )
            _log.warning(
                "%d of %d queries have the pixels of an image of their own support, as the Taskset %s. A support that "
                "holds the query gives the answer away, and evaluate refuses it: draw without replacement.",
                *(count, same.numel(), why),
            )

    def _drawn(self, index: int, number: int) -> Episode:
        with _seeded(f"{self.seed} {index} {number}"):
            images, labels = self.taskset.sample()[:2]
        return episode_from_labelled(images, labels, 0, self.levels, self.class_ids)


@contextmanager
def _seeded(text: str) -> Iterator[None]:
    """Python's ``random`` seeded with ``text`` inside, outside as it was."""
    before = random.getstate()
    random.seed(text)
    try:
        yield
    finally:
        random.setstate(before)
