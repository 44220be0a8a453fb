"""Calls of ``episode`` that every task refuses."""

from __future__ import annotations

import pytest

from tasks import TaskDistribution


def counts_are_named(task: TaskDistribution) -> None:
    """An index or a count out of range is refused by its name and value."""
    for arguments, message in (
        ((-1, 1, 1, 1), "index=-1"),
        ((0, 0, 1, 1), "tasks=0"),
        ((0, 1, -1, 1), "shots=-1"),
        ((0, 1, 1, 0), "queries=0"),
    ):
        with pytest.raises(ValueError, match=message):
            task.episode(*arguments)
