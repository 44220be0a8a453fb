"""One bar for all that takes a while: what is being done, how much of it is done, and how long the rest will take."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sized
from typing import Any, TypeVar, cast

from tqdm import tqdm

Item = TypeVar("Item")


def progress_bar(
    doing: str, total: int | None, unit: str, shown: bool = True, initial: int = 0, items: Iterable[Any] | None = None
) -> Any:
    """A bar of tqdm's, to be told of what was done by ``update(count)``; a context manager that closes it.

    doing: what is being done. total: how many, None where it is not known. unit: of what, in the plural. shown: False
    shows nothing. On a terminal it moves; in a log or a notebook, where each state is a line, every four seconds.
    """
    moving = sys.stderr.isatty()
    return tqdm(
        items,
        desc=doing,
        total=total,
        unit=f" {unit}",
        initial=initial,
        disable=not shown,
        mininterval=0.1 if moving else 4.0,
        dynamic_ncols=moving,
    )


def with_progress(
    items: Iterable[Item], doing: str, unit: str, shown: bool = True, total: int | None = None
) -> Iterable[Item]:
    """``items``, with a bar while they are gone through. total: how many, where they do not say it themselves."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    return cast(Iterable[Item], progress_bar(doing, total, unit, shown, items=items))
