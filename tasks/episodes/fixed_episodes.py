"""The common interface of fixed sets of episodes, which all models are evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from metadensity.episode import Episode


class FixedEpisodes(Protocol):
    """A finite list of episodes with a hash: ``StoredEpisodes`` or ``GeneratedEpisodes``.

    Every number of shots has the same queries, in the same order, and fewer shots are the first of more.
    """

    def __len__(self) -> int:
        """The number of episodes."""
        ...

    @property
    def max_shots(self) -> int:
        """The most supports that an episode can be given."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256, in hex, over all that determines the episodes."""
        ...

    def episodes(self, task: Any, shots: int, tasks_per_batch: int) -> Iterator[Episode]:
        """All episodes with ``shots`` supports each, in batches of at most ``tasks_per_batch`` tasks.

        Raises DataError where ``task`` is not the one they were built for, ValueError for a count out of range.
        """
        ...

    def require_task(self, task: Any) -> None:
        """Raise DataError unless ``task`` is the distribution that the episodes were built for."""
        ...
