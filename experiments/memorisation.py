"""Do samples copy the support? ``python -m experiments.memorisation with run=latest shots=4``."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sacred.run import Run
from torch import Tensor

from experiments.figures.images import GAP, PAPER, draw_samples, save_picture
from experiments.figures.shown import Events, as_text, grid
from experiments.ingredients.episode_counts import default_episode_sizes
from experiments.ingredients.evaluation import place_settings
from experiments.ingredients.task import task_of
from experiments.recording.command_line import main, make_experiment
from experiments.recording.lineage import record_use
from experiments.recording.run_folder import folder_of
from experiments.recording.trained_model import find_model, require_models
from experiments.reporting.headings import MEMORISATION
from experiments.reporting.tables import markdown, plain
from metadensity.checks import require_count
from metadensity.episode import Episode
from metadensity.evaluation.memorisation import CopyTest, closeness, nearest
from metadensity.files import write_atomically
from metadensity.progress import with_progress
from tasks import GeneratedEpisodes, ImageTasks, StoredEpisodes, TaskDistribution
from tasks.media import OF_IMAGES, Medium, Words

SHOTS = (1, 2, 3, 4)  # the most of these that the classes allow
UNNAMED = 64  # tasks, where there are no classes to take one of each

experiment = make_experiment("memorisation", named_configs={"fast": {"samples": 2, "classes": 4, "permutations": 50}})
experiment.config(place_settings)
experiment.check(require_models)


@experiment.config
def _defaults() -> None:
    run = "latest"  # a run's path or number, "latest", a shipped model's name, or a file
    split = "test"
    shots = None  # None: 4, or what the classes allow
    samples = 8  # of each class
    classes = None  # at most so many, spread evenly; None: all
    most_heldout = 40  # images of each class to compare with, where it has as many
    permutations = 4000
    shown = 16  # rows of the picture
    tasks_per_batch = 16  # the samples depend on it as they do on the seed
    device = "cpu"
    seed = 0  # of supports, samples and permutations
    progress = True  # whether bars are shown


@experiment.main
def memorisation(
    run: str,
    split: str,
    shots: int | None,
    samples: int,
    classes: int | None,
    most_heldout: int,
    permutations: int,
    shown: int,
    tasks_per_batch: int,
    device: str,
    seed: int,
    progress: bool,
    data_root: str | None,
    folder: str | None,
    _run: Run,
) -> dict[str, Any]:
    """Compare samples with held-out images by their distance to the support; print, write JSON, Markdown and a PNG."""
    output, subject = folder_of(_run), find_model(run)
    config, model = subject.config(), subject.model(device)
    task = task_of(subject, split, data_root, folder)
    shots = default_episode_sizes(task, None, 2, SHOTS)[0][-1] if shots is None else shots
    for name, count in (("shots", shots), ("samples", samples), ("most_heldout", most_heldout), ("shown", shown)):
        require_count(name, count, 1)
    unseen, heldout = shares(task, shots, most_heldout)
    batches, digest = one_episode_a_class(task, shots, unseen + heldout, classes, seed, tasks_per_batch)
    record_use(_run, output, "memorisation", [subject], digest)
    began, drawn = time.perf_counter(), []
    for number, batch in enumerate(with_progress(batches, "sampling", "batches", progress)):
        drawn.append(draw_samples(model, batch, samples, seed=1_000_003 * seed + number))
    seconds = time.perf_counter() - began
    sampled = torch.cat(drawn, 1)
    support, rest = (torch.cat([getattr(batch, part) for batch in batches], 1) for part in ("support", "query"))
    kept, others = rest[unseen:], rest[:unseen]
    known = [batch.class_ids for batch in batches if batch.class_ids is not None]
    ids = (torch.cat(known) if known else torch.arange(support.shape[1])).numpy()
    levels, words = task.levels, task.medium.words
    (near, which), (kept_near, kept_which) = nearest(sampled, support, levels), nearest(kept, support, levels)
    tests = {
        "support": closeness(near, kept_near, ids, seed, permutations, progress),
        "unseen": closeness(
            nearest(sampled, others, levels)[0], nearest(kept, others, levels)[0], ids, seed, permutations, progress
        ),
    }
    columns = [closest(sampled, near, which, support, shown), closest(kept, kept_near, kept_which, support, shown)]
    seen = side_by_side(columns, task.medium)
    picture = None if seen is None else save_picture(seen, output / "memorisation.png", task.medium.zoom)
    rows = [_row(f"{shots} supports", tests["support"]), _row(f"{unseen} unseen {words.nouns}", tests["unseen"])]
    title = (
        f"{config['model']['name']} ({subject.title}) on {task.name}, {split}: {samples} samples and {heldout} "
        f"held-out {words.nouns} of each of {len(set(ids.tolist()))} classes, {shots} shots"
    )
    said = verdict(tests["support"], tests["unseen"], words)
    print(f"\n{title}\n\n{plain(MEMORISATION, rows)}\n\n{said}\n")
    if picture is not None:
        print(f"Closest pairs (support, sample), and beside them (support, held-out {words.noun}): {picture}")
    if pairs := closest_strings(columns, task.medium):
        print(pairs)
        write_atomically(output / "memorisation.txt", pairs.encode())
    result = {
        "run": str(subject.path),
        "weights_sha256": model.provenance["weights_sha256"],
        "episodes_sha256": digest,
        "task": config["task"],
        "split": split,
        "shots": shots,
        "unseen_images": unseen,
        "closer": tests["support"].closer,
        "verdict": said,
        "tests": {name: _record(test) for name, test in tests.items()},
        "class_names": [task.class_names[number] for number in ids.tolist()] if known else None,
        "picture": None if picture is None else str(picture),
        "seconds": seconds,
        "seed": seed,
        "tasks_per_batch": tasks_per_batch,
        "folder": str(output),
    }
    write_atomically(output / "memorisation.json", json.dumps(result, indent=1, allow_nan=False).encode())
    write_atomically(output / "memorisation.md", f"{title}\n\n{markdown(MEMORISATION, rows)}\n{said}\n".encode())
    return result


def one_episode_a_class(
    task: TaskDistribution, shots: int, queries: int, classes: int | None, seed: int, tasks_per_batch: int
) -> tuple[list[Episode], str]:
    """An episode of each class, or of ``classes`` of them spread evenly, in batches; and their hash.

    A task that draws its images anew gives as many episodes, whose classes it draws: some may occur twice. Where no
    two tasks are alike, and there are no classes, there are ``UNNAMED`` episodes.
    """
    if isinstance(task, ImageTasks):
        count = task.classes if classes is None else min(classes, task.classes)
        chosen = StoredEpisodes.build(task, shots, queries, seed=seed, limit=count)
        return list(chosen.episodes(task, shots, tasks_per_batch)), chosen.hash
    count = (len(task.class_names) or UNNAMED) if classes is None else classes
    some = GeneratedEpisodes.build(task, shots, queries, count=count)
    return list(some.episodes(task, shots, tasks_per_batch)), some.hash


def shares(task: TaskDistribution, shots: int, most_heldout: int) -> tuple[int, int]:
    """How many images of each class are the unseen ones, as many as supports where there is room, and held out."""
    if not isinstance(task, ImageTasks):
        return shots, most_heldout
    left = int(task.class_size.min()) - shots
    if shots + left < 3:
        raise ValueError(
            f"{task.name}, {task.split}, has {shots + left} images of its smallest class; the comparison needs a "
            "support and 2 others, so it cannot be made for this task."
        )
    if left < 2:
        raise ValueError(
            f"shots={shots} leave {max(left, 0)} images of the smallest class of {task.name}, {task.split}; the "
            f"comparison needs 2 or more. Ask for at most {shots + left - 2} shots."
        )
    unseen = max(1, min(shots, left // 3))
    return unseen, min(left - unseen, most_heldout)


def closest(
    images: Tensor, distances: NDArray[np.float64], which: NDArray[np.int64], support: Tensor, shown: int
) -> tuple[Tensor, Tensor]:
    """Each task's image nearest to a support, the nearest tasks first: ``(1, shown, C, H, W)`` supports and images."""
    best = distances.argmin(0)
    tasks = np.arange(len(best))
    order = distances[best, tasks].argsort(kind="stable")[:shown]
    best, tasks = best[order], tasks[order]
    return support[which[best, tasks], tasks][None], images[best, tasks][None]


def side_by_side(columns: list[tuple[Tensor, Tensor]], medium: Medium) -> NDArray[np.uint8] | None:
    """Pairs (support, event) under each other, one column of pairs beside the next: ``(height, width, 3)``.

    None where the medium has no pictures.
    """
    grids = [grid(medium, [Events("support", pair[0]), Events("sample", pair[1], block=1)]) for pair in columns]
    blocks = [block for block in grids if block is not None]
    if not blocks:
        return None
    gap = np.full((len(blocks[0]), 6 * GAP, 3), PAPER, np.uint8)
    return np.concatenate([piece for block in blocks for piece in (gap, block)][1:], axis=1)


def closest_strings(columns: list[tuple[Tensor, Tensor]], medium: Medium) -> str:
    """The same as a text, of strings; "" of others."""
    (support, sample), (other, heldout) = columns
    kinds = {"support": support, "its sample": sample, "support too": other, "its held-out": heldout}
    titles = [f"closest pairs {number}" for number in range(support.shape[1])]
    return as_text(medium, [Events(name, pixels) for name, pixels in kinds.items()], titles)


def verdict(support: CopyTest, unseen: CopyTest, words: Words = OF_IMAGES) -> str:
    """The finding in a sentence or two."""
    if not support.closer:
        return f"No sign of copying: samples are not found to be closer to the support than held-out {words.nouns} are."
    text = f"Samples are closer to the support than held-out {words.nouns} of the class are."
    if unseen.closer:
        text += (
            f" They are closer to {words.nouns} of the class that the model did not see as well, so part of it is that "
            "they are plainer than those are; compare the two probabilities and look at the picture."
        )
    return text


def _row(name: str, test: CopyTest) -> list[str]:
    low, high = test.interval
    return [
        name,
        f"{test.sample_distance:.4f}",
        f"{test.heldout_distance:.4f}",
        f"{100 * test.sample_copies:.1f} %",
        f"{test.auc:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{test.p_value:.4f}",
    ]


def _record(test: CopyTest) -> dict[str, Any]:
    record = {**asdict(test), "interval": list(test.interval), "per_class": test.per_class.tolist()}
    assert all(math.isfinite(bound) for bound in test.interval)
    return record


if __name__ == "__main__":
    main(experiment)
