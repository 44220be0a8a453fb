"""Few-shot likelihood of a trained run: ``python -m experiments.evaluate with run=latest``."""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from sacred.run import Run
from tqdm import tqdm

import metadensity
from experiments.baselines import BASELINES, fit_baseline
from experiments.command_line import main, make_experiment
from experiments.ingredients import build_task
from experiments.run_folder import RunFolder, folder_of
from experiments.tables import comma_separated, likelihood_rows, markdown, plain, records
from metadensity.files import write_atomically
from metadensity.nn.pixelcnn import parameter_count
from tasks import ImageTasks
from tasks.episode_set import EpisodeSet

experiment = make_experiment(
    "evaluate",
    named_configs={
        "fast": {"shots": [0, 2], "queries": 2, "limit": 4, "baseline_steps": 3},
    },
)


@experiment.config
def _defaults() -> None:
    run = "latest"  # noqa: F841  a run's path, its number in runs/, or "latest"
    against: list[str] = []  # noqa: F841  other runs, scored on the same episodes
    baselines = True  # noqa: F841  fit and score the simple baselines as well
    baseline_steps = None  # noqa: F841  None: as in the named configuration "baseline"
    split = "test"  # noqa: F841
    shots = [0, 1, 2, 4, 8]  # noqa: F841
    queries = 4  # noqa: F841  queries that share a support
    draws = 1  # noqa: F841  how often each image is a query
    limit = None  # noqa: F841  at most so many episodes, spread over the classes
    tasks_per_batch = 16  # noqa: F841
    device = "cpu"  # noqa: F841
    precision = "float32"  # noqa: F841
    seed = 0  # noqa: F841  of the supports
    progress = True  # noqa: F841


@experiment.main
def evaluate(
    run: str,
    against: list[str],
    baselines: bool,
    baseline_steps: int | None,
    split: str,
    shots: list[int],
    queries: int,
    draws: int,
    limit: int | None,
    tasks_per_batch: int,
    device: str,
    precision: str,
    seed: int,
    progress: bool,
    _run: Run,
) -> dict[str, Any]:
    """Score every image of the split given supports; print the table, write JSON, CSV and Markdown."""
    folder, subject = folder_of(_run), RunFolder.find(run)
    config = subject.config()
    task = build_task(config["task"], split)
    episodes = EpisodeSet.build(task, shots, queries, draws, seed, limit)
    models = {config["model"]["name"]: subject.model(device)}
    for other in against:
        found = RunFolder.find(other)
        require_same_pixels(config, found.config())
        models[_fresh(found.config()["model"]["name"], models)] = found.model(device)
    if baselines:
        train = build_task(config["task"], "train")
        settings = {} if baseline_steps is None else {"steps": baseline_steps}
        for name in BASELINES:
            models[_fresh(name, models)] = fit_baseline(name, train, tuple(shots), seed, **settings).to(device)
    evaluations, cost = {}, {}
    for name, model in models.items():
        began = time.perf_counter()
        evaluations[name] = _score(name, model, episodes, task, shots, tasks_per_batch, precision, progress)
        images = sum(row.images for row in evaluations[name].rows)
        seconds = time.perf_counter() - began
        cost[name] = {"parameters": parameter_count(model), "seconds": seconds, "images_per_second": images / seconds}
    first, *rest = evaluations
    headings, rows = likelihood_rows(evaluations[first], {name: evaluations[name] for name in rest})
    row = evaluations[first].rows[0]
    title = (
        f"{first} (run {subject.path.name}) on {config['task']['name']}, {split}: {row.images} images of {row.classes} "
        f"classes in {len(set(task.class_group.tolist()))} groups"
    )
    print(f"\n{title}; other models in nats/image\n\n{plain(headings, rows)}\n")
    result = {
        "run": str(subject.path),
        "weights_sha256": models[first].provenance["weights_sha256"],
        "episodes_sha256": episodes.hash,
        "task": config["task"],
        "fingerprint": task.fingerprint,
        "split": split,
        "device": device,
        "threads": torch.get_num_threads(),
        "cost": cost,
        "rows": records(evaluations),
        "folder": str(folder),
    }
    write_atomically(folder / "evaluation.json", json.dumps(result, indent=1, allow_nan=False).encode())
    write_atomically(folder / "evaluation.csv", comma_separated(evaluations).encode())
    write_atomically(folder / "evaluation.md", f"{title}\n\n{markdown(headings, rows)}".encode())
    return result


def require_same_pixels(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Raise ValueError where two runs were trained on different tasks or pixels: their numbers do not compare."""
    differ = {
        key for key in one["task"] if key not in ("seed", "data_root") and one["task"][key] != other["task"].get(key)
    }
    if differ:
        detail = ", ".join(f"{key}: {one['task'][key]!r} and {other['task'].get(key)!r}" for key in sorted(differ))
        raise ValueError(
            f"These runs model different pixels ({detail}), so their likelihoods cannot be compared. "
            "Compare runs with the same task settings."
        )


def _score(
    name: str,
    model: metadensity.FewShotModel,
    episodes: EpisodeSet,
    task: ImageTasks,
    shots: list[int],
    tasks_per_batch: int,
    precision: str,
    progress: bool,
) -> metadensity.Evaluation:
    batches = -(-len(episodes) // tasks_per_batch) * len(shots)
    stream = (episode for count in shots for episode in episodes.episodes(task, count, tasks_per_batch))
    return metadensity.evaluate(model, tqdm(stream, name, batches, disable=not progress, unit="batch"), precision)


def _fresh(name: str, taken: dict[str, Any]) -> str:
    """``name``, numbered where it is taken."""
    names = (name, *(f"{name} {number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in names if candidate not in taken)


if __name__ == "__main__":
    main(experiment)
