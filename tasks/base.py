"""What every task distribution is: episodes as a pure function of (seed, index)."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadensity.density import Density
from metadensity.episode import Episode

SPLITS = ("train", "validation", "test")
_WORD = 2**64


class TaskDistribution(ABC):
    """A distribution over tasks, each of which is a distribution over images.

    name: what it is called in ``TASKS``.
    split: "train", "validation", "test", or several of them joined by "+".
    seed: together with the index it fixes an episode, 0 <= seed < 2**64.
    event_shape: shape of one image, ``(C, *space)``.
    levels: pixels are integers in ``[0, levels)``.

    A subclass also sets
    class_names, group_names: names of the classes and of their groups.
    class_group: ``(classes,)`` int64, the group of each class.
    recipe: everything that determines the tasks, as JSON-able values.

    There is no hidden state: two objects built alike give equal episodes for an equal index, in any
    order, and no global random state is read or changed.
    """

    class_names: list[str]
    group_names: list[str]
    class_group: NDArray[np.int64]
    recipe: dict[str, Any]

    def __init__(self, name: str, split: str, seed: int, event_shape: tuple[int, ...], levels: int) -> None:
        self.name = name
        self.split = split
        self.seed = require_word("seed", seed)
        self.event_shape = tuple(int(length) for length in event_shape)
        self.levels = int(levels)
        if len(self.event_shape) < 2 or min(self.event_shape) < 1:
            raise ValueError(
                f"event_shape={self.event_shape}; a task needs (channels, *space), at least one of each, all positive."
            )
        if not 2 <= self.levels <= 256:
            raise ValueError(f"levels={levels}; pixels are held as 8-bit integers, so give 2 to 256 levels.")

    @abstractmethod
    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        """Episode number ``index``: support ``(shots, tasks, C, *space)``, query ``(queries, tasks, C, *space)``.

        A pure function of (seed, index). Within a task, support and query hold different images. For an
        equal index and an equal number of tasks and queries, the tasks and the queries do not depend on
        ``shots``, and fewer shots are the first of more.

        Raises ValueError for an index or a count out of range, or where a class has too few images.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, in hex, over what the tasks are. It does not depend on the seed."""

    def optimum(self, episode: Episode) -> Density | None:
        """The exact p(x | support), where these tasks know their own truth; None where they do not.

        No density has a higher log-likelihood on average over episodes, given the same supports: the distance
        of a model to it is how far the model is from the best possible.
        """
        return None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name={self.name!r}, split={self.split!r}, seed={self.seed}, "
            f"event_shape={self.event_shape}, levels={self.levels})"
        )


def require_word(name: str, value: int) -> int:
    """``value`` as an int in [0, 2**64), the range of a random key; TypeError or ValueError otherwise."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; give an integer from 0 to 2**64 - 1.") from None
    if not 0 <= number < _WORD:
        raise ValueError(f"{name}={number}; give an integer from 0 to 2**64 - 1.")
    return number


def require_count(name: str, value: int, least: int) -> int:
    """``value`` as an int of at least ``least``; TypeError or ValueError otherwise."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; give an integer of at least {least}.") from None
    if number < least:
        raise ValueError(f"{name}={number}; give at least {least}.")
    return number


def most_shots(shots: int | Sequence[int]) -> int:
    """The largest of one or several numbers of supports; ValueError where there is none, or one is below 0."""
    asked = list(shots) if isinstance(shots, Sequence) else [shots]
    if not asked:
        raise ValueError("shots is empty; give a number of supports or a list of them, such as [1, 2, 4, 8].")
    return max(require_count("shots", count, 0) for count in asked)


def require_batches(what: str, shots: int, most: int, tasks_per_batch: int) -> tuple[int, int]:
    """``shots`` and ``tasks_per_batch`` as ints, once ``what``, with ``most`` supports an episode, can give them.

    Raises TypeError or ValueError for a count out of range.
    """
    shots = require_count("shots", shots, 0)
    size = require_count("tasks_per_batch", tasks_per_batch, 1)
    if shots > most:
        raise ValueError(
            f"shots={shots}, but {what} has {most} supports an episode; ask for at most {most}, or build it for more."
        )
    return shots, size


def split_parts(name: str, split: str) -> tuple[str, ...]:
    """The parts of ``split``, in the order of ``SPLITS``: ("train", "validation") for "train+validation".

    Raises ValueError for anything but distinct names out of ``SPLITS``.
    """
    parts = tuple(split.split("+")) if isinstance(split, str) else ()
    if not parts or len(set(parts)) != len(parts) or not set(parts) <= set(SPLITS):
        raise ValueError(
            f"split={split!r} is not a split of {name}; give one of {', '.join(SPLITS)}, "
            "or several joined by '+', such as 'train+validation'."
        )
    return tuple(part for part in SPLITS if part in parts)
