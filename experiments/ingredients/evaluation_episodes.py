"""The fixed episodes that an evaluation scores: chosen, found in files, and batched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from experiments.ingredients.episode_counts import default_episode_sizes
from experiments.recording.root import runs_root
from tasks import FixedEpisodes, GeneratedEpisodes, ImageTasks, StoredEpisodes, TaskDistribution

FILE = "episodes.npz"


def choose_episodes(
    task: TaskDistribution,
    path: str | None,
    shots: list[int] | None,
    queries: int | None,
    draws: int,
    limit: int | None,
    seed: int,
    generated_episodes: int,
) -> FixedEpisodes:
    """The set in the file or run folder ``path``, or where that is None the one that these settings describe.

    shots, queries: None takes the usual ones, as far as the classes have images for them (``episode_counts``).

    Tasks that draw their images without end have episodes 0 to ``generated_episodes - 1``. Raises DataError for a file
    that is missing, damaged or of another task or split, ValueError for a setting out of range.
    """
    if path is not None:
        if not isinstance(task, ImageTasks):
            raise ValueError(f"episodes={path!r}, but {task.name} has no finite set of images; leave episodes=None.")
        return StoredEpisodes.load(find_episodes(str(path)), task)
    shots, queries = default_episode_sizes(task, shots, queries)
    if isinstance(task, ImageTasks):
        return StoredEpisodes.build(task, shots, queries, draws, seed, limit)
    count = generated_episodes if limit is None else min(generated_episodes, limit)
    return GeneratedEpisodes.build(task, shots, queries, count)


def find_episodes(path: str) -> Path:
    """An episode file by its path, by its run's folder, or by its run's number under the runs folder."""
    candidates = (Path(path), Path(path) / FILE, runs_root() / path / FILE)
    return next((candidate for candidate in candidates if candidate.is_file()), Path(path))


def pixel_identity(task: TaskDistribution) -> dict[str, Any]:
    """What a likelihood is a likelihood of, as JSON values: results on other pixels do not compare.

    Of long lists in the recipe (the characters of a split) there is only a hash.
    """
    recipe = {
        key: f"{len(value)} with sha256 {_digest(value)[:16]}" if isinstance(value, list) and len(value) > 8 else value
        for key, value in task.recipe.items()
    }
    shape = {"event_shape": list(task.event_shape), "levels": task.levels}
    return {**shape, "recipe": recipe, "fingerprint": task.fingerprint}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class EpisodeBatches:
    """The episodes of a set, at several numbers of shots one after the other; may be gone through again."""

    def __init__(self, chosen: FixedEpisodes, task: Any, shots: list[int], tasks_per_batch: int) -> None:
        self.chosen, self.task, self.shots, self.size = chosen, task, shots, tasks_per_batch

    def __iter__(self) -> Any:
        for shots in self.shots:
            yield from self.chosen.episodes(self.task, shots, self.size)

    def __len__(self) -> int:
        return -(-len(self.chosen) // self.size) * len(self.shots)
