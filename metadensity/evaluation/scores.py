"""What an evaluation is: scores of queries, and rows by number of shots."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from metadensity.density import EXACT
from metadensity.evaluation.cost import Cost
from metadensity.evaluation.intervals import clustered_mean


@dataclass(frozen=True)
class Scores:
    """Negative log-likelihoods of queries at one number of shots, in nats/image.

    One value a query, by task and then by query, in the order of the episodes however they were batched. nats:
    ``(n,)``. class_ids: ``(n,)`` int64, the class of each query (each task its own where ids are unknown).
    group_ids, query_ids: ``(n,)`` int64, the group of the class and the id of the image, or -1 where unknown.
    quantity: what was scored, see ``Density.quantity``; of a bound, nats are at least the negative log-likelihood in
        the mean.
    """

    nats: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    group_ids: NDArray[np.int64]
    query_ids: NDArray[np.int64]
    quantity: str = EXACT

    def select(self, which: NDArray[np.bool_]) -> Scores:
        """Those of the queries that ``which``, ``(n,)``, picks."""
        return replace(self, **{name: getattr(self, name)[which] for name in ARRAYS})


ARRAYS = ("nats", "class_ids", "group_ids", "query_ids")
"""The arrays of ``Scores``."""


@dataclass(frozen=True)
class LikelihoodRow:
    """The likelihood at one number of shots. interval: 95 %, in nats/image, over ``classes`` clusters.

    nats_per_dim, bits_per_dim: the sum over all queries divided by the sum of their sizes (places differ where queries
    have lengths). quantity: see ``Scores``.
    group_interval: the interval over ``groups`` clusters, for classes of one group depend on each other as well (the
    characters of an alphabet); None where there are fewer than two. identical: how many queries had the pixels of an
    image of their support (see ``metadensity.evaluation.leaks``). impossible: how many queries have probability 0: the
    mean is infinite then, without an interval.
    """

    shots: int
    nats_per_image: float
    interval: tuple[float, float]
    nats_per_dim: float
    bits_per_dim: float
    images: int
    classes: int
    groups: int = 0
    group_interval: tuple[float, float] | None = None
    identical: int = 0
    quantity: str = EXACT
    impossible: int = 0


@dataclass(frozen=True)
class GroupRow:
    """The likelihood of one group (an alphabet) at one number of shots. interval: 95 %, over its classes."""

    shots: int
    group: int
    nats_per_image: float
    interval: tuple[float, float]
    images: int
    classes: int


@dataclass(frozen=True)
class Evaluation:
    """Rows by number of shots, ascending, the scores behind them, and what they cost."""

    rows: list[LikelihoodRow]
    scores: dict[int, Scores] = field(repr=False)
    cost: Cost | None = field(default=None, repr=False, compare=False)

    def row(self, shots: int) -> LikelihoodRow:
        """The row of one number of shots. Raises KeyError where it was not evaluated."""
        for row in self.rows:
            if row.shots == shots:
                return row
        raise KeyError(f"shots={shots} was not evaluated; there are {[row.shots for row in self.rows]}.")

    def by_group(self) -> list[GroupRow]:
        """One row for each group and number of shots, by group; groups of unknown id (-1) are left out."""
        found = []
        for group in sorted({int(group) for part in self.scores.values() for group in part.group_ids} - {-1}):
            for shots, part in self.scores.items():
                inside = part.group_ids == group
                if inside.any():
                    clusters = part.class_ids[inside]
                    mean, interval = clustered_mean(part.nats[inside], clusters)
                    classes = len(np.unique(clusters))
                    found.append(GroupRow(shots, group, mean, interval, int(inside.sum()), classes))
        return found
