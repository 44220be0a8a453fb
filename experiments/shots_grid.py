"""Shots in training against shots in the test, as one grid:

``python -m experiments.shots_grid with hershey attention train_shots='[[0,1,2,4,8],[1],[4],[8]]'``

trains one model for each entry, each a recorded run of experiments.train with the same settings but the shots; or takes
finished ones, ``runs='["runs/1","runs/2"]'``. All are scored on the same episodes. Beside each likelihood stands the
paired difference to the diagonal: the model trained with just the number of shots that is tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sacred.run import Run

import metadensity
from experiments.figures.grids import heat_map
from experiments.figures.shot_curves import save_figure
from experiments.ingredients import NAMED_CONFIGS, build_task, model, read_config, task, training, training_config
from experiments.ingredients.evaluation import (
    episode_settings,
    evaluation_settings,
    place_settings,
    require_evaluation_settings,
)
from experiments.ingredients.evaluation_episodes import EpisodeBatches, choose_episodes, pixel_identity
from experiments.ingredients.task import require_same_data, task_of
from experiments.recording import lineage
from experiments.recording.command_line import main, make_experiment
from experiments.recording.comparability import UNITS, require_same_pixels
from experiments.recording.run_folder import folder_of
from experiments.recording.score_files import FILE as SCORES
from experiments.recording.score_files import save_scores
from experiments.recording.trained_model import TrainedModel
from experiments.reporting.tables import Section, difference_record, interval, marked, records
from experiments.studies.training_runs import find_runs, in_words, other_settings, train_run, write_results
from metadensity import Evaluation
from metadensity.evaluation.comparison import Difference, finite_difference
from metadensity.evaluation.scores import LikelihoodRow
from metadensity.progress import with_progress
from tasks.media import OF_IMAGES, Words

_FAST = {**NAMED_CONFIGS["fast"], "train_shots": [[0, 2], [1]], "test_shots": [0, 1, 2], "queries": 2, "limit": 8}
experiment = make_experiment("shots_grid", [task, model, training], {**NAMED_CONFIGS, "fast": _FAST})
experiment.config(evaluation_settings)
experiment.check(require_evaluation_settings)
experiment.config(episode_settings)
experiment.config(place_settings)


@experiment.config
def _defaults() -> None:
    train_shots = [[0, 1, 2, 4, 8], [1], [4], [8]]  # a model each; training.shots is not used
    test_shots = [0, 1, 2, 4, 8]
    runs = list[str]()  # finished runs of experiments.train, in place of training


@experiment.main
def shots_grid(
    task: dict[str, Any],
    model: dict[str, Any],
    training: dict[str, Any],
    train_shots: list[list[int]],
    test_shots: list[int],
    runs: list[str | int],
    split: str,
    episodes: str | None,
    queries: int | None,
    draws: int,
    limit: int | None,
    generated_episodes: int,
    duplicates: str,
    tasks_per_batch: int,
    device: str,
    precision: str,
    seed: int,
    progress: bool,
    data_root: str | None,
    folder: str | None,
    _run: Run,
) -> dict[str, Any]:
    """Train or take the models, score them; print the grid, write JSON, CSV, Markdown, scores and a heat map."""
    output = folder_of(_run)
    found = find_runs(runs)
    config = found[0].config()["task"] if found else task
    tested = task_of(found[0], split, data_root, folder) if found else build_task(task, split)
    for other in found[1:]:
        require_same_pixels(read_config(found[0].config()), read_config(other.config()))
        require_same_data(other, tested)
    settings = [] if found else trainings(training, train_shots)
    for each in settings:  # found out before hours of training, not after
        training_config(each, seed)
    if not found and not settings:
        raise ValueError("train_shots is empty and so is runs; give one of them, such as train_shots='[[0,1,2],[1]]'.")
    chosen = choose_episodes(tested, episodes, test_shots, queries, draws, limit, seed, generated_episodes)
    for each in settings:
        print(f"Training with {each['shots']} shots.")
        found.append(train_run(_run, {"task": task, "model": model, "training": each, "seed": seed}, progress))
    lineage.record_use(_run, output, "shots grid", found, chosen.hash)
    named = dict(zip(labels([run.config()["training"]["shots"] for run in found], found), found, strict=True))
    batches = EpisodeBatches(chosen, tested, sorted(set(test_shots)), tasks_per_batch)
    evaluations = {}
    for name, run in named.items():
        stream = with_progress(batches, f"scoring what was trained with {name}", "batches", progress)
        evaluations[name] = metadensity.evaluate(run.model(device), stream, precision, duplicates)
    trained = {name: tuple(run.config()["training"]["shots"]) for name, run in named.items()}
    to_diagonal = differences_to_diagonal(evaluations, trained)
    unequal = other_settings(found, ["training.shots"])
    title = f"{found[0].config()['model']['name']} on {config['name']}, {split}"
    words = tested.medium.words
    sections = grid_sections(title, evaluations, to_diagonal, unequal, words)
    print("\n" + "\n".join(section.plain() for section in sections))
    identity = {"units": UNITS, "pixels": pixel_identity(tested), "split": tested.split, "episodes_sha256": chosen.hash}
    rows = [
        {
            **row,
            "train_shots": list(trained[row["model"]]),
            "run": str(named[row["model"]].path),
            **_difference_columns(to_diagonal[row["model"]].get(row["shots"])),
        }
        for row in records(evaluations)
    ]
    result = {**identity, "task": config, "other_settings": unequal, "rows": rows, "folder": str(output)}
    save_scores(output / SCORES, evaluations, identity)
    write_results(output / "shots_grid", result, rows, sections)
    save_figure(_picture(title, evaluations, trained, words.nats), output / "shots_grid.png")
    return result


def trainings(training: Mapping[str, Any], train_shots: Sequence[Any]) -> list[dict[str, Any]]:
    """The settings of training of each model. Raises ValueError as ``require_shots``."""
    return [{**training, "shots": require_shots(entry)} for entry in train_shots]


def require_shots(entry: Any) -> list[int]:
    """One entry of ``train_shots``. Raises ValueError unless it is a list of numbers of supports."""
    if not isinstance(entry, Sequence) or isinstance(entry, str) or not entry:
        raise ValueError(
            f"train_shots holds {entry!r}; each entry is the list of shots that a model is trained with, such as [1] "
            "or [0, 1, 2, 4, 8]."
        )
    return list(entry)


def labels(train_shots: Sequence[Sequence[int]], runs: Sequence[TrainedModel]) -> list[str]:
    """What each model is called, ``0,1,2``; with the run's name where several were trained with the same shots."""
    plain = [",".join(map(str, shots)) for shots in train_shots]
    return [f"{name} ({run.title})" if plain.count(name) > 1 else name for name, run in zip(plain, runs, strict=True)]


def differences_to_diagonal(
    evaluations: Mapping[str, Evaluation], trained: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[int, Difference]]:
    """By model and tested shots, the paired difference to the first model trained with just those shots.

    Where no model was, for that model itself, and where one gives an image probability 0, there is none.
    """
    found: dict[str, dict[int, Difference]] = {name: {} for name in evaluations}
    for name, evaluation in evaluations.items():
        for shots, scores in evaluation.scores.items():
            diagonal = next((other for other, known in trained.items() if known == (shots,)), name)
            if diagonal != name:
                difference = finite_difference(evaluations[diagonal].scores[shots], scores)
                if difference is not None:
                    found[name][shots] = difference
    return found


def grid_sections(
    title: str,
    evaluations: Mapping[str, Evaluation],
    to_diagonal: Mapping[str, Mapping[int, Difference]],
    unequal: Mapping[str, Sequence[Any]],
    words: Words = OF_IMAGES,
) -> list[Section]:
    """The grid of likelihoods, and that of differences to the diagonal where there is one."""
    first = next(iter(evaluations.values())).rows
    headings = ["trained with", *(f"{row.shots} shot" if row.shots == 1 else f"{row.shots} shots" for row in first)]
    rows = [
        [
            marked(name, evaluation.scores),
            *(f"{row.nats_per_image:.2f} ({interval(row.interval)})" for row in evaluation.rows),
        ]
        for name, evaluation in evaluations.items()
    ]
    notes = [
        f"{words.nats.capitalize()} with 95 % intervals over {first[0].classes} classes: the same {first[0].images} "
        "queries in every cell. Rows: shots in training, each model with as many steps, and the checkpoint that "
        "validated best with those shots; columns: shots in the test."
    ]
    if unequal:
        notes.append(
            f"The models differ in more than their shots ({in_words(unequal)}), "
            "so this is no effect of the shots alone."
        )
    sections = [Section(f"{title}: train shots x test shots", headings, rows, notes)]
    if any(to_diagonal.values()):
        cells = [
            [name, *(_shown(to_diagonal[name].get(row.shots)) for row in evaluation.rows)]
            for name, evaluation in evaluations.items()
        ]
        note = "Above 0 where the model is worse than the one trained with just the tested number of shots."
        sections.append(Section(f"Paired difference to the diagonal, {words.nats}, 95 %", headings, cells, [note]))
    return sections


def _shown(found: Difference | None) -> str:
    return "" if found is None else f"{found.mean:+.3f} ({interval(found.interval, 3)})"


def _difference_columns(found: Difference | None) -> dict[str, Any]:
    record = {} if found is None else difference_record(found)
    return {f"to_diagonal_{key}": record.get(key) for key in ("mean", "interval_low", "interval_high")}


def _cell(row: LikelihoodRow) -> str:
    half = row.interval[1] - row.nats_per_image
    return f"{row.nats_per_image:.2f}" + (f"\n±{half:.2f}" if math.isfinite(half) else "")  # one class has no interval


def _picture(
    title: str, evaluations: Mapping[str, Evaluation], trained: Mapping[str, tuple[int, ...]], unit: str
) -> Any:
    shots = [row.shots for row in next(iter(evaluations.values())).rows]
    values = [[row.nats_per_image for row in evaluation.rows] for evaluation in evaluations.values()]
    texts = [[_cell(row) for row in evaluation.rows] for evaluation in evaluations.values()]
    framed = [(i, j) for i, name in enumerate(evaluations) for j, s in enumerate(shots) if trained[name] == (s,)]
    names = (list(evaluations), [str(number) for number in shots])
    return heat_map(values, texts, names, ("trained with shots", "tested with shots"), title, framed, unit)


if __name__ == "__main__":
    main(experiment)
