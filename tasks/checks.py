"""Validation of the arguments of tasks: splits, shots, batches."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from metadensity.checks import require_count

SPLITS = ("train", "validation", "test")


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
        near = {part: difflib.get_close_matches(part.lower(), SPLITS, 1, 0.5) for part in parts}
        meant = "+".join(dict.fromkeys(found[0] for found in near.values() if found))
        raise ValueError(
            f"split={split!r} is not a split of {name}; give one of {', '.join(SPLITS)}, "
            "or several joined by '+', such as 'train+validation'."
            f"{f' Did you mean {meant!r}?' if meant and all(near.values()) else ''}"
        )
    return tuple(part for part in SPLITS if part in parts)
