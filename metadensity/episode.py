"""The episode: a support set and queries from a batch of tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from metadensity.checks import require_integer_pixels


@dataclass(frozen=True)
class Episode:
    """Support and query images of a batch of tasks, as integer pixels in ``[0, levels)``.

    Sample dimensions come first and the batch of tasks after them, as torch.distributions lays
    them out, so ``query`` is literally a draw from a batch of task distributions.

    support: ``(S, tasks, C, *space)``, an integer dtype. S may be 0: the prior.
    query: ``(Q, tasks, C, *space)``, the same dtype.
    class_ids, group_ids: ``(tasks,)`` int64 or None: which class each task is (a character), and
        which group the class belongs to (its alphabet). Intervals respect these groups.
    support_ids, query_ids: ``(S, tasks)`` and ``(Q, tasks)`` int64 or None: which images these are
        in the task distribution they came from.

    Raises ValueError where the shapes do not fit together, TypeError for pixels that are no integers.
    """

    support: Tensor
    query: Tensor
    class_ids: Tensor | None = None
    group_ids: Tensor | None = None
    support_ids: Tensor | None = None
    query_ids: Tensor | None = None

    def __post_init__(self) -> None:
        for name, pixels in (("support", self.support), ("query", self.query)):
            require_integer_pixels(name, pixels)
            if pixels.ndim < 4:
                raise ValueError(
                    f"{name} has shape {tuple(pixels.shape)}; an episode needs (samples, tasks, channels, *space) "
                    "with at least one space dimension. Add the missing dimensions, for example with unsqueeze."
                )
        if self.support.shape[1:] != self.query.shape[1:]:
            raise ValueError(
                f"support {tuple(self.support.shape)} and query {tuple(self.query.shape)} differ after the first "
                "dimension; both must hold the same tasks and images of the same shape."
            )
        expected = {
            "class_ids": (self.tasks,),
            "group_ids": (self.tasks,),
            "support_ids": (self.shots, self.tasks),
            "query_ids": (self.queries, self.tasks),
        }
        for name, shape in expected.items():
            ids = getattr(self, name)
            if ids is not None and tuple(ids.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(ids.shape)}; this episode needs {shape}.")

    @property
    def shots(self) -> int:
        """Number of support images of each task, S."""
        return self.support.shape[0]

    @property
    def queries(self) -> int:
        """Number of query images of each task, Q."""
        return self.query.shape[0]

    @property
    def tasks(self) -> int:
        """Number of tasks in the batch."""
        return self.query.shape[1]

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one image, ``(C, *space)``."""
        return self.query.shape[2:]

    def with_shots(self, shots: int) -> Episode:
        """The same tasks and queries with the first ``shots`` supports: nested, so curves over shots are paired.

        Raises ValueError where the episode holds fewer supports than asked for.
        """
        if not 0 <= shots <= self.shots:
            raise ValueError(f"shots={shots}, but this episode holds {self.shots} supports; ask for 0 to {self.shots}.")
        ids = None if self.support_ids is None else self.support_ids[:shots]
        return replace(self, support=self.support[:shots], support_ids=ids)

    def to(self, device: torch.device | str) -> Episode:
        """The episode with its pixels on ``device``; ids stay where they are."""
        return replace(self, support=self.support.to(device), query=self.query.to(device))


class EpisodeSource(Protocol):
    """What training and evaluation need of a task distribution (the real ones live in ``tasks``)."""

    event_shape: tuple[int, ...]
    levels: int

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        """A pure function of (the source's seed, ``index``)."""
        ...
