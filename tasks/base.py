"""What every task distribution is: episodes as a pure function of (seed, index)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metadensity.checks import require_uint64
from metadensity.density import Density
from metadensity.episode import Episode
from tasks.media import Medium, usual_medium


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
    group_noun: what a group is called in reports, such as "alphabet".
    recipe: everything that determines the tasks, as JSON-able values.

    There is no hidden state: two objects built alike give equal episodes for an equal index, in any
    order, and no global random state is read or changed.
    """

    class_names: list[str]
    group_names: list[str]
    class_group: NDArray[np.int64]
    group_noun: str = "group"
    recipe: dict[str, Any]
    ink: bool = False
    """Whether the last level is ink, drawn black on white paper; otherwise level 0 is black and the last one white."""
    training_only: ClassVar[tuple[str, ...]] = ("seed", "data_root", "styles")
    """Options of the tasks that the pixels of the test do not depend on: runs that differ in them may be compared."""

    def __init__(self, name: str, split: str, seed: int, event_shape: tuple[int, ...], levels: int) -> None:
        self.name = name
        self.split = split
        self.seed = require_uint64("seed", seed)
        self.event_shape = tuple(int(length) for length in event_shape)
        self.levels = int(levels)
        if len(self.event_shape) < 2 or min(self.event_shape) < 1:
            raise ValueError(
                f"event_shape={self.event_shape}; a task needs (channels, *space), at least one of each, all positive."
            )
        if not 2 <= self.levels <= 256:
            raise ValueError(f"levels={levels}; pixels are held as 8-bit integers, so give 2 to 256 levels.")

    @property
    def medium(self) -> Medium:
        """What an event is to a person: how it is shown, and what its units are called.

        Here what its shape says: an image, numbers of a sequence. A task of sounds or of strings says so.
        """
        return usual_medium(self.event_shape, self.levels, self.ink)

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

    def given(self, strings: Tensor) -> Tensor | None:
        """Where sequences are a given part and what follows from it, such as a source and its target: where it ends.

        strings: ``(*sample, tasks, C, T)``. How many of the first places are given, ``(*sample, tasks)``; None for
        tasks whose images have no such parts.
        """
        return None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name={self.name!r}, split={self.split!r}, seed={self.seed}, "
            f"event_shape={self.event_shape}, levels={self.levels})"
        )
