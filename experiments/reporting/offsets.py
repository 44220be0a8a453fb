"""The offset of recordings: whether the most frequent level alone tells whose a recording is."""

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
    """Of the recordings of one class or group. level: the one that most of them have as their most frequent one.

    share: part of them that do. low, high: the most frequent levels that are the lowest and the highest of any.
    """

    name: str
    recordings: int
    level: int
    share: float
    low: int
    high: int


@dataclass(frozen=True)
class Offsets:
    """The offsets of a split, by ``noun``: its groups, or where there is one alone its classes.

    accuracy: part of the recordings whose class has the largest part of other recordings with their most frequent
    level; of those that have as large a one each counts its share. interval: its 95 % over recordings. chance: that of
    guessing. option: whether ``centred=True`` is left to take the offsets out.
    """

    noun: str
    rows: list[Offset]
    accuracy: float
    interval: tuple[float, float]
    chance: float
    option: bool

    @property
    def tell(self) -> bool:
        """Whether they surely tell the classes apart better than a guess."""
        return self.interval[0] > self.chance

    def said(self) -> str:
        """What is to be known, in a sentence or two."""
        low, high = (100 * bound for bound in self.interval)
        text = (
            f"Offset: told by the most frequent level of a recording alone, {100 * self.accuracy:.0f} % "
            f"({low:.0f} to {high:.0f}) of the recordings are given their own of {len(self.rows)} "
            f"{_several(self.noun)}, by chance {100 * self.chance:.0f} %"
        )
        if not self.tell:
            return f"{text}: offsets do not tell {_several(self.noun)} apart."
        beside = " task.centred=True takes them out." if self.option else ""
        return f"{text}: offsets tell {_several(self.noun)} apart before a sound is made.{beside}"

    def section(self) -> Section:
        """As a part of a report."""
        rows = [
            [row.name, str(row.recordings), str(row.level), f"{100 * row.share:.0f} %", f"{row.low} to {row.high}"]
            for row in self.rows[:SHOWN]
        ]
        headings = [self.noun, "recordings", "most frequent level", "of so many", "others"]
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
    levels = np.array([_most_frequent(task, number) for number in range(task.images)])
    counts = np.zeros((len(names), task.levels), np.int64)
    np.add.at(counts, (index, levels), 1)
    right = _recognised(counts, index, levels)
    accuracy, interval = bounded_mean(right, np.arange(len(right)))
    rows = []
    for number, name in enumerate(names):
        own = levels[index == number]
        level = int(counts[number].argmax())
        rows.append(Offset(name, len(own), level, float((own == level).mean()), int(own.min()), int(own.max())))
    option = task.recipe.get("centred") is False
    return Offsets(task.group_noun if several else "class", rows, accuracy, interval, 1 / len(names), option)


def _most_frequent(task: ImageTasks, number: int) -> int:
    """The level that most real places of a recording have."""
    length = task.lengths([number])
    real = task.pixels(number)[..., : None if length is None else int(length)]
    return int(np.bincount(real.numpy().ravel()).argmax())


def _recognised(counts: NDArray[np.int64], index: NDArray[np.int64], levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each recording, left out itself, 1 where its class has the largest part of its level, 1 / k of k such ones."""
    sizes = counts.sum(1)
    own = np.arange(len(counts)) == index[:, None]
    parts = (counts[:, levels].T - own) / np.maximum(1, sizes - own)
    largest = parts >= parts.max(1, keepdims=True)
    return np.where(largest[own], 1 / largest.sum(1), 0.0)


def _several(noun: str) -> str:
    return f"{noun}{'es' if noun.endswith('s') else 's'}"
