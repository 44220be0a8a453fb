"""What a test shares with training: groups, and images that are equal pixel for pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.reporting.tables import interval
from metadensity import Evaluation
from metadensity.evaluation.intervals import clustered_mean
from tasks import ImageTasks, TaskDistribution

SHOWN_GROUPS = 5  # by name; the record has all


@dataclass(frozen=True)
class TrainingOverlap:
    """groups: names of those that both have; of_groups: how many the test has. images: of the test, equal to one of
    training; of_images: how many it has. without: the likelihood without them as queries, by number of shots; empty
    where there are none, and where nothing would be left.
    """

    groups: list[str]
    of_groups: int
    images: int
    of_images: int
    without: dict[int, tuple[float, tuple[float, float]]]

    def notes(self, task: TaskDistribution) -> list[str]:
        """To be read with the likelihood; nothing for tasks without images of their own."""
        if not self.of_images:
            return []
        words, found = task.medium.words, _groups_note(self.groups, self.of_groups, task.group_noun)
        if not self.images:
            return [*found, f"No {words.noun} of {task.split} is equal to a training {words.noun}."]
        rows = "; ".join(
            f"{mean:.2f} at {shots} ({interval(bounds)})" for shots, (mean, bounds) in self.without.items()
        )
        said = f"{self.images} of {self.of_images} {words.nouns} of {task.split} are equal to a training {words.noun}"
        return [*found, f"{said}. Without them as queries, {words.nats}: {rows or 'nothing is left'}."]

    def record(self) -> dict[str, Any]:
        """The same as JSON values."""
        rows = [
            {
                "shots": shots,
                "nats_per_image": mean if np.isfinite(mean) else None,
                "interval": list(bounds) if np.isfinite(bounds).all() else None,
            }
            for shots, (mean, bounds) in self.without.items()
        ]
        counts = {"groups": self.groups, "of_groups": self.of_groups, "images": self.images}
        return {**counts, "of_images": self.of_images, "rows_without_them": rows}


def shared_groups(task: TaskDistribution, train: TaskDistribution) -> list[str]:
    """How many groups of ``task`` training has as well, in a sentence; none where it has one group, or draws anew."""
    if not isinstance(task, ImageTasks) or not isinstance(train, ImageTasks):
        return []
    return _groups_note(_shared(task, train), len(task.group_names), task.group_noun)


def _shared(task: TaskDistribution, train: TaskDistribution) -> list[str]:
    known = set(train.group_names)
    return [name for name in task.group_names if name in known]


def _groups_note(groups: Sequence[str], of_groups: int, noun: str) -> list[str]:
    if of_groups < 2:
        return []
    names = ", ".join(groups[:SHOWN_GROUPS]) + (", ..." if len(groups) > SHOWN_GROUPS else "")
    return [f"{len(groups)} of {of_groups} {noun}s are in training as well{f': {names}' if groups else ''}."]


def training_overlap(task: TaskDistribution, train: TaskDistribution, evaluation: Evaluation) -> TrainingOverlap:
    """What ``task``, on which a model was evaluated, shares with what it was trained on.

    Tasks that draw their images without end have no images to be equal.
    """
    if not isinstance(task, ImageTasks) or not isinstance(train, ImageTasks):
        return TrainingOverlap([], 0, 0, 0, {})
    seen = task.equal_to_one_of(train)
    groups = _shared(task, train)
    without = {}
    for shots, scores in evaluation.scores.items() if seen.any() else ():
        kept = scores.select(~seen[scores.query_ids])
        if len(kept.nats):
            without[shots] = clustered_mean(kept.nats, kept.class_ids)
    return TrainingOverlap(groups, len(task.group_names), int(seen.sum()), task.images, without)
