"""The offset of recordings: whether the median level of a recording, or its most frequent one, tells whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.reporting.tables import Section
from metadensity.evaluation.intervals import bounded_mean
from tasks import ImageTasks, TaskDistribution
from tasks.media import Sounds

SHOWN = 12  # rows of the table; the record has all


@dataclass(frozen=True)
class Offset:
    """Of the recordings of one class or group. most_frequent: the level of most of all their samples.

    median, low, high: the median, the lowest and the highest of the median levels of the recordings.
    """

    name: str
    recordings: int
    most_frequent: int
    median: int
    low: int
    high: int


@dataclass(frozen=True)
class Offsets:
    """The offsets of a split, by ``noun``: its groups, or where there is one alone its classes.

    accuracy: part of the recordings whose class has the largest part of other recordings with their median level; of
    those that have as large a one each counts its share. interval: its 95 % over recordings. by_most_frequent: the same
    of the most frequent level, which loudness moves as well. chance: that of guessing. option: whether ``centred=True``
    is left to take the offsets out.
    """

    noun: str
    rows: list[Offset]
    accuracy: float
    interval: tuple[float, float]
    by_most_frequent: float
    chance: float
    option: bool

    def said(self) -> str:
        """What is to be known, in a sentence or two."""
        low, high = (100 * bound for bound in self.interval)
        text = (
            f"By its median level alone, the offset, {100 * self.accuracy:.0f} % ({low:.0f} to {high:.0f}) of the "
            f"recordings are given their own of {len(self.rows)} {_several(self.noun)}; by the most frequent level "
            f"alone {100 * self.by_most_frequent:.0f} %, by chance {100 * self.chance:.0f} %."
        )
        if not self.option or low <= 100 * self.chance:
            return text
        return f"{text} task.centred=True takes offsets out."

    def section(self) -> Section:
        """As a part of a report."""
        rows = [
            [row.name, str(row.recordings), str(row.most_frequent), str(row.median), f"{row.low} to {row.high}"]
            for row in self.rows[:SHOWN]
        ]
        headings = [self.noun, "recordings", "most frequent level", "median level", "of recordings"]
        more = len(self.rows) - SHOWN
        notes = [f"{more} more are in evaluation.json."] if more > 0 else []
        return Section(f"Offset of the recordings, by {self.noun}", headings, rows, [self.said(), *notes])

    def record(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**asdict(self), "interval": list(self.interval)}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Offsets:
        """What ``record`` made."""
        low, high = record["interval"]
        return cls(**{**record, "rows": [Offset(**row) for row in record["rows"]], "interval": (low, high)})


def offsets_of(task: TaskDistribution) -> Offsets | None:
    """The offsets of all recordings of a split; None of tasks of no sound, and where there is one class alone."""
    if not isinstance(task, ImageTasks) or not isinstance(task.medium, Sounds):
        return None
    several = len(task.group_names) > 1
    index, names = (task.class_group[task.labels], task.group_names) if several else (task.labels, task.class_names)
    if len(names) < 2:
        return None
    histograms = np.stack([_histogram(task, number) for number in range(task.images)])
    below = histograms.cumsum(1)
    medians = (2 * below < below[:, -1:]).sum(1)  # the lower one of two
    right = _recognised(index, medians, task.levels)
    accuracy, interval = bounded_mean(right, np.arange(len(right)))
    rows = []
    for number, name in enumerate(names):
        own, frequent = medians[index == number], int(histograms[index == number].sum(0).argmax())
        rows.append(Offset(name, len(own), frequent, int(np.median(own)), int(own.min()), int(own.max())))
    by_most_frequent = float(_recognised(index, histograms.argmax(1), task.levels).mean())
    option = task.recipe.get("centred") is False
    noun = task.group_noun if several else "class"
    return Offsets(noun, rows, accuracy, interval, by_most_frequent, 1 / len(names), option)


def _histogram(task: ImageTasks, number: int) -> NDArray[np.int64]:
    """How many real places of a recording have each level, ``(levels,)``."""
    length = task.lengths([number])
    real = task.pixels(number)[..., : None if length is None else int(length)]
    return np.bincount(real.numpy().ravel(), minlength=task.levels)


def _recognised(index: NDArray[np.int64], found: NDArray[np.int64], levels: int) -> NDArray[np.float64]:
    """Of each recording, left out itself, 1 where its class has the largest part of its level, 1 / k of k such ones.

    index: the class of each; found: its level.
    """
    counts = np.zeros((int(index.max()) + 1, levels), np.int64)
    np.add.at(counts, (index, found), 1)
    own = np.arange(len(counts)) == index[:, None]
    parts = (counts[:, found].T - own) / np.maximum(1, counts.sum(1) - own)
    largest = parts >= parts.max(1, keepdims=True)
    return np.where(largest[own], 1 / largest.sum(1), 0.0)


def _several(noun: str) -> str:
    return f"{noun}{'es' if noun.endswith('s') else 's'}"
