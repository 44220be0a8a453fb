"""A trained run as an n-way classifier: ``python -m experiments.classify with run=latest ways=5 shots=1``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacred.run import Run

from experiments.ingredients.episode_counts import default_episode_sizes
from experiments.ingredients.evaluation import place_settings
from experiments.ingredients.task import task_of
from experiments.recording.command_line import main, make_experiment
from experiments.recording.lineage import record_use
from experiments.recording.run_folder import folder_of
from experiments.recording.trained_model import find_model, require_models
from experiments.reporting.tables import interval, markdown, plain
from experiments.reporting.training_overlap import shared_groups
from metadensity.checks import require_count
from metadensity.evaluation.classification import (
    Classification,
    by_cluster,
    class_log_probs,
    classification,
    nearest_neighbour_scores,
    tie_aware_accuracy,
)
from metadensity.evaluation.intervals import Floats, bounded_mean, clustered_mean
from metadensity.evaluation.nway import NWayEpisodes, stack_nway
from metadensity.files import write_atomically
from metadensity.progress import progress_bar
from tasks import ImageTasks
from tasks.episodes.nway import draw_nway, eligible_groups
from tasks.media import OF_IMAGES, Words

HEADINGS = ("classifier", "accuracy %", "95 % interval", "NLL, nats", "95 % interval", "ECE")
PART = 16  # episodes between two updates of the progress bar

experiment = make_experiment("classify", named_configs={"fast": {"ways": 3, "episodes": 4}})
experiment.shares = True
experiment.config(place_settings)
experiment.check(require_models)


@experiment.config
def _defaults() -> None:
    run = "latest"  # a run's path or number, "latest", a shipped model's name, or a file
    file = None  # an .npz of n-way episodes; all settings down to seed are then the file's
    split = "test"
    ways = None  # classes of an episode; None: 5, or what there are
    shots = 1
    queries = None  # of each class; None: 5, or what the classes allow
    episodes = 200
    within_group = False  # all classes of an episode of one group (Omniglot: one alphabet)
    seed = 0  # of the episodes
    keep = None  # also write the episodes to this .npz
    both_ways = False  # also what the query says of the supports: log p(support | query) - log p(support)
    bins = 10  # of the calibration
    images_per_batch = 64  # pairs of a query and a class at a time; a GPU takes more
    device = "cpu"
    precision = "float32"
    progress = True  # whether bars are shown


@experiment.main
def classify(
    run: str,
    file: str | None,
    split: str,
    ways: int | None,
    shots: int,
    queries: int | None,
    episodes: int,
    within_group: bool,
    seed: int,
    keep: str | None,
    both_ways: bool,
    bins: int,
    images_per_batch: int,
    device: str,
    precision: str,
    progress: bool,
    data_root: str | None,
    folder: str | None,
    _run: Run,
) -> dict[str, Any]:
    """Score queries against the supports of n classes; print the tables, write JSON and Markdown."""
    output, subject = folder_of(_run), find_model(run)
    config, model = subject.config(), subject.model(device)
    require_count("episodes", episodes, 1)
    known: list[str] = []
    words = OF_IMAGES
    if file is not None:
        drawn, where = NWayEpisodes.load(file), f"the episodes of {Path(file).name}"
    else:
        task = task_of(subject, split, data_root, folder, seed=seed)
        if not isinstance(task, ImageTasks):
            raise TypeError(
                f"{task.name} draws its {task.medium.words.nouns} anew, so it has none to choose n-way episodes from. "
                "Use a run on a task of stored ones, or file= with episodes."
            )
        where, words = f"{task.name}, {split}", task.medium.words
        ways = default_ways(task, within_group) if ways is None else ways
        if within_group:
            groups = len(eligible_groups(task, ways))
            where += f", within one of {groups} of its {len(set(task.class_group.tolist()))} groups"
        asked = default_episode_sizes(task, [shots], queries, usual_queries=5)[1]
        known = shared_groups(task, task_of(subject, "train", data_root, folder))
        numbers = range(episodes)
        drawn = stack_nway([draw_nway(task, index, ways, shots, asked, within_group) for index in numbers])
    drawn.require_fit(model.event_shape, model.levels, where)
    if keep is not None:
        drawn.save(keep)
    record_use(_run, output, "classified", [subject], drawn.hash)
    began = time.perf_counter()
    parts = _parts(drawn, config["model"]["name"], progress)
    scores = np.concatenate([class_log_probs(model, part, images_per_batch, precision, both_ways) for part in parts])
    seconds = time.perf_counter() - began
    label = drawn.label.numpy()
    dependence = drawn.dependence()
    found = classification(scores, label, bins, dependence)
    name = config["model"]["name"]
    rows = [_row(name, found), *_chance(drawn.ways)]
    nearest = _nearest(drawn, model.levels, scores, dependence[0]) if drawn.shots else None
    if nearest is not None:
        rows.insert(1, ["nearest neighbour", *_percent(nearest["accuracy"], nearest["interval"]), "", "", ""])
    title = (
        f"{name} ({subject.title}) on {where}: {drawn.ways}-way, {drawn.shots}-shot, {found.queries} queries "
        f"in {found.episodes} episodes"
    )
    impossible = int(np.isneginf(scores).all(-1).sum())
    notes = "\nScores both ways, log p(query | support) + log p(support | query) - log p(support).\n" * both_ways
    notes += _notes(name, found, nearest, impossible, words) + "".join(f"\n{said}\n" for said in known)
    bin_rows = [
        [f"{b.low:.2f} to {b.high:.2f}", str(b.queries), f"{b.confidence:.3f}", f"{b.accuracy:.3f}"] for b in found.bins
    ]
    bin_headings = ("top posterior", "queries", "its mean", "accuracy")
    print(f"\n{title}\n\n{plain(HEADINGS, rows)}\n{notes}\n{plain(bin_headings, bin_rows)}\n")
    pairs = found.queries * drawn.ways
    result = {
        "run": str(subject.path),
        "weights_sha256": model.provenance["weights_sha256"],
        "task": config["task"],
        "source": {"file": str(file)}
        if file is not None
        else {"split": split, "within_group": within_group, "seed": seed},
        "episodes_sha256": drawn.hash,
        "shots": drawn.shots,
        "both_ways": both_ways,
        **_finite(asdict(found)),
        "nearest_neighbour": nearest,
        "impossible": impossible,
        "cost": {"seconds": seconds, "pairs_per_second": pairs / seconds, "device": device},
        "folder": str(output),
    }
    text = f"{title}\n\n{markdown(HEADINGS, rows)}{notes}\n{markdown(bin_headings, bin_rows)}"
    write_atomically(output / "classification.json", json.dumps(result, indent=1, allow_nan=False).encode())
    write_atomically(output / "classification.md", text.encode())
    return result


def _parts(drawn: NWayEpisodes, name: str, progress: bool) -> Iterator[NWayEpisodes]:
    with progress_bar(f"scoring {name}", len(drawn), "episodes", progress) as bar:
        for start in range(0, len(drawn), PART):
            part = drawn[start : start + PART]
            yield part
            bar.update(len(part))


def default_ways(task: ImageTasks, within_group: bool) -> int:
    """5, or as many classes as the split has, or its largest group. Raises ValueError where that is one."""
    classes = max(np.bincount(task.class_group)) if within_group else task.classes
    if classes < 2:
        raise ValueError(
            f"The {task.split} split of {task.name} has {'no group of 2 classes' if within_group else '1 class'}, and "
            "there is nothing to tell it from. Classify on another split, such as split=train."
        )
    return min(5, int(classes))


def _nearest(drawn: NWayEpisodes, levels: int, scores: Floats, ids: NDArray[np.int64]) -> dict[str, Any]:
    """The pixel-space nearest neighbour on the same queries, and the paired difference of the model from it."""
    distances, label = -nearest_neighbour_scores(drawn, levels), drawn.label.numpy()
    right = tie_aware_accuracy(-distances, label)
    accuracy, interval = bounded_mean(*by_cluster(right, ids))
    gain, gain_interval = clustered_mean(*by_cluster(tie_aware_accuracy(scores, label) - right, ids))
    return _finite(
        {
            "accuracy": accuracy,
            "interval": interval,
            "gain": gain,
            "gain_interval": gain_interval,
            "identical_queries": int((distances.min(-1) == 0).sum()),
            "per_episode": right.mean(1),
        }
    )


def _notes(name: str, found: Classification, nearest: dict[str, Any] | None, impossible: int, words: Words) -> str:
    count, noun = found.over
    further = "other classes" if noun == "classes" else f"other {words.nouns} of these classes, not for other classes"
    noun = words.nouns if noun == "images" else noun
    text = f"\nIntervals are over {count} {noun}, however often each was drawn: for {further}.\n"
    if impossible:
        text += (
            f"\n{name} gives {impossible} of {found.queries} queries probability 0 under every class of their episode: "
            "they count as chance, and say nothing of it.\n"
        )
    if nearest is None:
        return text
    low, high = nearest["gain_interval"]
    sure = "without an interval" if low is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
    text += f"\n{name} minus nearest neighbour: {100 * nearest['gain']:+.1f} points, {sure}, in pairs.\n"
    if same := nearest["identical_queries"]:
        text += f"{same} queries are equal to {words.one} of their episode's supports: they test nothing.\n"
    return text


def _row(name: str, found: Classification) -> list[str]:
    nll = [f"{found.nll:.3f}", interval(found.nll_interval, 3)]
    return [name, *_percent(found.accuracy, found.accuracy_interval), *nll, f"{found.ece:.3f}"]


def _chance(ways: int) -> list[list[str]]:
    return [["chance", f"{100 / ways:.1f}", "", f"{math.log(ways):.3f}", "", "0.000"]]


def _percent(mean: float, interval: tuple[float, float]) -> list[str]:
    return [f"{100 * mean:.1f}", f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"]


def _finite(value: Any) -> Any:
    """The same for strict JSON: arrays as lists, an infinite bound as None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main(experiment)
