"""Default numbers of supports and queries of an episode, reduced where a class has too few images.

An emoji has five drawings, an image two mirror images. Numbers that are asked for are taken as they are, and refused
where there is no room; those that are left open (None) are the usual ones as far as every class of the split has images
for them. They depend on the task alone, so all models of a task are scored on the same episodes.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks import ImageTasks, TaskDistribution

SHOTS, QUERIES = (0, 1, 2, 4, 8), 4


def default_episode_sizes(
    task: TaskDistribution,
    shots: Sequence[int] | None,
    queries: int | None,
    usual_shots: Sequence[int] = SHOTS,
    usual_queries: int = QUERIES,
) -> tuple[list[int], int]:
    """Numbers of supports and of queries, with the usual ones where None is given, as far as there is room for them.

    Supports come first: those of ``usual_shots`` that leave one query, or the least of them; then as many queries as
    are left, and one at least.
    """
    size = int(task.class_size.min()) if isinstance(task, ImageTasks) else None  # others draw images without end
    if shots is None:
        wanted = sorted(usual_shots)
        fitting = wanted if size is None else [count for count in wanted if count <= size - (queries or 1)]
        shots = fitting or wanted[:1]
    if queries is None:
        left = usual_queries if size is None else size - max(shots, default=0)
        queries = max(1, min(usual_queries, left))
    return list(shots), queries
