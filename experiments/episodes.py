"""Write a fixed evaluation set: ``python -m experiments.episodes with hershey split=test``.

The file holds image numbers and a hash, no pixels. Every image of the split is a query equally often, and supports are
nested over shots. ``python -m experiments.evaluate with run=... episodes=PATH`` scores on it. With the defaults of
both, it is the set that evaluate builds by itself.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeAlias

from sacred.run import Run

from experiments.command_line import main, make_experiment
from experiments.ingredients import NAMED_CONFIGS, build_task, task
from experiments.room import room
from experiments.run_folder import folder_of, runs_root
from tasks import EpisodeRange, EpisodeSet, ImageTasks, TaskDistribution

Episodes: TypeAlias = EpisodeSet | EpisodeRange
FILE = "episodes.npz"

_TASKS = {name: {"task": config["task"]} for name, config in NAMED_CONFIGS.items() if "task" in config}
experiment = make_experiment("episodes", [task], {**_TASKS, "fast": {"limit": 4}})


@experiment.config
def _defaults() -> None:
    split = "test"  # noqa: F841
    shots = None  # noqa: F841  the set is good for every number up to the largest; None: 8, or what the classes allow
    queries = None  # noqa: F841  queries that share a support; None: 4, or what the classes allow
    draws = 1  # noqa: F841  how often each image is a query
    limit = None  # noqa: F841  at most so many episodes, spread over the classes
    seed = 0  # noqa: F841  of the supports


@experiment.main
def episodes(
    task: dict[str, Any],
    split: str,
    shots: list[int] | None,
    queries: int | None,
    draws: int,
    limit: int | None,
    seed: int,
    _run: Run,
) -> dict[str, Any]:
    """Build the set and write it. Returns its path, hash and size."""
    folder, source = folder_of(_run), build_task(task, split)
    if not isinstance(source, ImageTasks):
        raise ValueError(
            f"{source.name} draws its images without end, so there is no set of them to write. experiments.evaluate "
            "takes its episodes 0, 1, 2, ... and records that with a hash."
        )
    shots, queries = room(source, shots, queries)
    built = EpisodeSet.build(source, shots, queries, draws, seed, limit)
    built.save(folder / FILE)
    images = int((built.query_ids >= 0).sum())
    print(f"{len(built)} episodes, {images} queries, up to {built.max_shots} shots: {folder / FILE}\nhash {built.hash}")
    return {
        "path": str(folder / FILE),
        "episodes_sha256": built.hash,
        "episodes": len(built),
        "queries": images,
        "max_shots": built.max_shots,
        "pixels": pixels_of(source),
        "split": source.split,
        "folder": str(folder),
    }


def choose_episodes(
    task: TaskDistribution,
    path: str | None,
    shots: list[int] | None,
    queries: int | None,
    draws: int,
    limit: int | None,
    seed: int,
    drawn: int,
) -> Episodes:
    """The set in the file or run folder ``path``, or where that is None the one that these settings describe.

    shots, queries: None takes the usual ones, as far as the classes have images for them (``experiments.room``).

    Tasks that draw their images without end have episodes 0 to ``drawn - 1``. Raises DataError for a file that is
    missing, damaged or of another task or split, ValueError for a setting out of range.
    """
    if path is not None:
        if not isinstance(task, ImageTasks):
            raise ValueError(f"episodes={path!r}, but {task.name} has no finite set of images; leave episodes=None.")
        return EpisodeSet.load(find_episodes(str(path)), task)
    shots, queries = room(task, shots, queries)
    if isinstance(task, ImageTasks):
        return EpisodeSet.build(task, shots, queries, draws, seed, limit)
    return EpisodeRange.build(task, shots, queries, drawn if limit is None else min(drawn, limit))


def find_episodes(path: str) -> Path:
    """An episode file by its path, by its run's folder, or by its run's number under the runs folder."""
    candidates = (Path(path), Path(path) / FILE, runs_root() / path / FILE)
    return next((candidate for candidate in candidates if candidate.is_file()), Path(path))


def pixels_of(task: TaskDistribution) -> dict[str, Any]:
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


class Batches:
    """The episodes of a set, at several numbers of shots one after the other; may be gone through again."""

    def __init__(self, chosen: Episodes, task: Any, shots: list[int], tasks_per_batch: int) -> None:
        self.chosen, self.task, self.shots, self.size = chosen, task, shots, tasks_per_batch

    def __iter__(self) -> Any:
        for shots in self.shots:
            yield from self.chosen.episodes(self.task, shots, self.size)

    def __len__(self) -> int:
        return -(-len(self.chosen) // self.size) * len(self.shots)


if __name__ == "__main__":
    main(experiment)
