"""Drawing n-way classification episodes from the classes of a task distribution."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from metadensity.checks import require_count, require_uint64
from metadensity.evaluation.nway import NWayEpisodes
from tasks.images import ImageTasks

_STREAM = 2**255  # the counter where these episodes' random numbers begin; other episodes of the same key begin at 0


def draw_nway(
    task: ImageTasks, index: int, ways: int, shots: int, queries: int, within_group: bool = False
) -> NWayEpisodes:
    """Episode number ``index``, a pure function of (the task's seed, index): one episode of ``queries`` a class.

    ``ways`` distinct classes, uniformly; with ``within_group`` all of one group, as in Omniglot's one-shot protocol
    (an alphabet): the group uniformly among those with enough classes, then its classes. Queries and supports of a
    class are different images. For an equal index, classes and queries do not depend on ``shots``, and fewer shots
    are the first of more. Query k of way w is query number ``w * queries + k``.

    Raises ValueError for counts out of range, and where classes, groups or images are too few.
    """
    index, ways = require_uint64("index", index), require_count("ways", ways, 2)
    shots, queries = require_count("shots", shots, 0), require_count("queries", queries, 1)
    pools = eligible_groups(task, ways) if within_group else [np.arange(len(task.class_names))]
    where = f"the {task.split} split of {task.name}"
    if len(pools[0]) < ways:
        most = f"Ask for at most {len(pools[0])}" if len(pools[0]) > 1 else "Take a split of two classes or more"
        raise ValueError(f"ways={ways}, but {where} has {len(pools[0])} classes. {most}.")
    smallest = int(task.class_size.argmin())  # it decides, drawn or not: a run fails at its first episode or never
    if shots + queries > task.class_size[smallest]:
        raise ValueError(
            f"shots={shots} and queries={queries} need {shots + queries} different images, but class "
            f"{task.class_names[smallest]!r} of {where} has {task.class_size[smallest]}. "
            f"Ask for at most {task.class_size[smallest]} together."
        )
    key = np.array([task.seed, index], dtype=np.uint64)
    random = np.random.Generator(np.random.Philox(key=key, counter=_STREAM))
    classes = random.permutation(pools[random.integers(len(pools))])[:ways]
    images = [task.class_start[c] + random.permutation(task.class_size[c]) for c in classes]
    chosen = np.stack([ids[: queries + shots] for ids in images])
    query, support = chosen[:, :queries].reshape(-1), chosen[:, queries:]
    lengths = {"support": task.support_lengths(support), "query": task.lengths(query)}
    return NWayEpisodes(
        task.pixels(support)[None],
        task.pixels(query)[None],
        torch.arange(ways).repeat_interleave(queries)[None],
        torch.from_numpy(classes)[None],
        **{f"{part}_lengths": None if known is None else known[None] for part, known in lengths.items()},
    )


def eligible_groups(task: ImageTasks, ways: int) -> list[NDArray[np.int64]]:
    """The classes of each group that has at least ``ways``. Raises ValueError where none has."""
    groups = [np.flatnonzero(task.class_group == group) for group in np.unique(task.class_group)]
    found = [group for group in groups if len(group) >= ways]
    if not found:
        most = max(map(len, groups))
        raise ValueError(
            f"ways={ways} within one group, but the largest group of the {task.split} split of {task.name} has "
            f"{most} classes. Ask for at most {most}, or draw across groups with within_group=False."
        )
    return found
