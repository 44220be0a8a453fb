"""Write a fixed evaluation set: ``python -m experiments.episodes with hershey split=test``.

The file holds image numbers and a hash, no pixels. Every image of the split is a query equally often, and supports are
nested over shots. ``python -m experiments.evaluate with run=... episodes=PATH`` scores on it. With the defaults of
both, it is the set that evaluate builds by itself.
"""

from __future__ import annotations

from typing import Any

from sacred.run import Run

from experiments.ingredients import NAMED_CONFIGS, build_task, task
from experiments.ingredients.episode_counts import room
from experiments.ingredients.evaluation_episodes import (
    FILE,
    pixels_of,
)
from experiments.recording.command_line import main, make_experiment
from experiments.recording.run_folder import folder_of
from tasks import EpisodeSet, ImageTasks

_TASKS = {name: {"task": config["task"]} for name, config in NAMED_CONFIGS.items() if "task" in config}
experiment = make_experiment("episodes", [task], {**_TASKS, "fast": {"limit": 4}})


@experiment.config
def _defaults() -> None:
    split = "test"
    shots = None  # the set is good for every number up to the largest; None: 8, or what the classes allow
    queries = None  # queries that share a support; None: 4, or what the classes allow
    draws = 1  # how often each image is a query
    limit = None  # at most so many episodes, spread over the classes
    seed = 0  # of the supports


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


if __name__ == "__main__":
    main(experiment)
