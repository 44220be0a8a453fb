"""Few-shot likelihood of a trained run: ``python -m experiments.evaluate with run=latest``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from sacred.run import Run

import metadensity
from experiments.figures.shot_curves import save_figure, shot_curve
from experiments.ingredients import read_config
from experiments.ingredients.baselines import baseline_model, baseline_training, baselines_of, fit_baseline
from experiments.ingredients.episode_counts import default_episode_sizes
from experiments.ingredients.evaluation import (
    episode_settings,
    evaluation_settings,
    place_settings,
    require_evaluation_settings,
)
from experiments.ingredients.evaluation_episodes import EpisodeBatches, choose_episodes, pixel_identity
from experiments.ingredients.task import require_same_data, task_of
from experiments.recording.command_line import main, make_experiment
from experiments.recording.comparability import UNITS, origin, require_same_pixels
from experiments.recording.lineage import record_use
from experiments.recording.run_folder import folder_of
from experiments.recording.score_files import FILE as SCORES
from experiments.recording.score_files import save_scores
from experiments.recording.trained_model import find_model, require_models
from experiments.reporting.ensemble_weights import weight_lines
from experiments.reporting.evaluation_report import (
    evaluation_report,
    group_records,
    infinite_notes,
    part_records,
    part_section,
    support_notes,
    support_record,
)
from experiments.reporting.offsets import offsets_of
from experiments.reporting.tables import comma_separated, cost_record, marked, records
from experiments.reporting.training_overlap import training_overlap
from metadensity.evaluation.likelihood import score
from metadensity.evaluation.support_use import support_use
from metadensity.files import write_atomically
from metadensity.progress import with_progress
from tasks import TaskDistribution

experiment = make_experiment("evaluate", named_configs={"fast": {"limit": 4, "baseline_steps": 3}})
experiment.shares = True
experiment.check(require_models)
experiment.config(evaluation_settings)
experiment.check(require_evaluation_settings)
experiment.config(episode_settings)
experiment.config(place_settings)


@experiment.config
def _defaults() -> None:
    run = "latest"  # a run's path or number, "latest", a shipped model's name, or a file
    against = list[str]()  # others, scored on the same episodes
    baselines = True  # fit and score the simple baselines as well
    baseline_steps = None  # None: as in the named configuration "baseline"
    shots = None  # a list; None: 0, 1, 2, 4 and 8, as far as the classes have images for them


@experiment.main
def evaluate(
    run: str,
    against: list[str],
    baselines: bool,
    baseline_steps: int | None,
    split: str,
    episodes: str | None,
    shots: list[int] | None,
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
    """Score every image of the split given supports; print the report, write JSON, CSV, Markdown, scores and a plot."""
    output, subject = folder_of(_run), find_model(run)
    config = subject.config()
    task = task_of(subject, split, data_root, folder)
    chosen = choose_episodes(task, episodes, shots, queries, draws, limit, seed, generated_episodes)
    if shots is None:
        shots = [count for count in default_episode_sizes(task, None, queries)[0] if count <= chosen.max_shots]
    models = {config["model"]["name"]: subject.model(device)}
    origins: dict[str, dict[str, Any]] = {next(iter(models)): origin(subject)}
    record_use(_run, output, "evaluated", [subject, *map(find_model, against)], chosen.hash)
    for other in against:
        found = find_model(other)
        require_same_pixels(read_config(config), read_config(found.config()))
        require_same_data(found, task)
        name = _fresh(found.config()["model"]["name"], models)
        models[name] = found.model(device)
        origins[name] = origin(found)
    train = task_of(subject, "train", data_root, folder)
    if baselines:
        settings = {} if baseline_steps is None else {"steps": baseline_steps}
        for baseline in baselines_of(task):
            name = _fresh(baseline, models)
            models[name] = fit_baseline(baseline, train, tuple(shots), seed, progress, **settings).to(device)
            training = {**baseline_training(baseline), "shots": shots, **settings}
            fitted = {
                "task": config["task"],
                "model": baseline_model(baseline, train),
                "training": training,
                "seed": seed,
            }
            origins[name] = {"run": None, "config": fitted}
    batches = EpisodeBatches(chosen, task, sorted(set(shots)), tasks_per_batch)
    most = EpisodeBatches(chosen, task, [max(shots)], tasks_per_batch)
    optimum = optimal(task, batches, device, duplicates, progress)
    given: dict[str, metadensity.Evaluation] = {}
    evaluations, uses = {}, {}
    for name, model in models.items():
        stream = with_progress(batches, f"scoring {name}", "batches", progress)
        evaluations[name] = metadensity.evaluate(model, stream, precision, duplicates, seed)
        if task.given(next(iter(batches)).query) is not None:
            stream = with_progress(_of_given(task, batches), f"scoring what is given, {name}", "batches", progress)
            given[name] = metadensity.evaluate(model, stream, precision, duplicates, seed)
        if max(shots):
            uses[name] = support_use(model, most, precision, duplicates, evaluations[name], seed, progress)
    first = next(iter(evaluations))
    row, words = evaluations[first].rows[0], task.medium.words
    title = (
        f"{marked(first, evaluations[first].scores)} ({subject.title}) "
        f"on {config['task']['name']}, {split}: {row.images} {words.nouns} of {row.classes} "
        f"class{'es' * (row.classes != 1)}" + (f" in {row.groups} group{'s' * (row.groups != 1)}" if row.groups else "")
    )
    overlap = training_overlap(task, train, evaluations[first])
    sections = evaluation_report(f"{title}; other models in {words.nats}", evaluations, uses, optimum, task, duplicates)
    sections[0].notes += overlap.notes(task)
    offsets = offsets_of(task)
    if offsets is not None:
        sections.append(offsets.section())
    parts: list[dict[str, Any]] = []
    if given:
        best = optimal(task, _of_given(task, batches), device, duplicates, progress)
        parts = part_records(evaluations, given, optimum, best)
        sections.insert(1, part_section(parts, words))
    weighed = [line for model in models.values() for line in weight_lines(model)]
    print("\n" + "\n".join([*(section.plain() for section in sections), *weighed]))
    identity = {
        "units": UNITS,
        "pixels": pixel_identity(task),
        "split": task.split,
        "episodes_sha256": chosen.hash,
    }
    result = {
        "run": str(subject.path),
        "weights_sha256": models[first].provenance["weights_sha256"],
        **identity,
        "words": words.record(),
        "task": config["task"],
        "fingerprint": task.fingerprint,
        "episodes": {"path": episodes, "number": len(chosen), "max_shots": chosen.max_shots, "duplicates": duplicates},
        "precision": precision,
        "device": device,
        "threads": torch.get_num_threads(),
        "models": {name: {**origins[name], **_weights(model)} for name, model in models.items()},
        "cost": {name: cost_record(evaluation.cost) for name, evaluation in evaluations.items()},
        "rows": records(evaluations, optimum),
        "parts": parts,
        "remarks": [*infinite_notes(evaluations, words), *support_notes(evaluations, words)],
        "offsets": None if offsets is None else offsets.record(),
        "groups": group_records(evaluations, task),
        "training_overlap": overlap.record(),
        "support_use": {name: support_record(use, words) for name, use in uses.items()},
        "folder": str(output),
    }
    scored = evaluations if optimum is None else {**evaluations, "optimum": optimum}
    save_scores(output / SCORES, scored, identity)
    write_atomically(output / "evaluation.json", json.dumps(result, indent=1, allow_nan=False).encode())
    write_atomically(output / "evaluation.csv", comma_separated(evaluations, optimum).encode())
    write_atomically(output / "evaluation.md", "\n".join(section.markdown() for section in sections).encode())
    curves = {marked(name, evaluation.scores): evaluation for name, evaluation in evaluations.items()}
    save_figure(shot_curve(curves, title, optimum, words), output / "evaluation.png")
    return result


def optimal(
    task: TaskDistribution,
    batches: EpisodeBatches | Sequence[metadensity.Episode],
    device: str,
    duplicates: str,
    progress: bool,
) -> metadensity.Evaluation | None:
    """The evaluation of the truth itself, where the task knows it."""
    if task.optimum(next(iter(batches))) is None:
        return None

    def log_prob(episode: metadensity.Episode) -> torch.Tensor:
        density = task.optimum(episode)
        assert density is not None
        if episode.query_lengths is None:
            return density.log_prob(episode.query)
        return density.prefix_log_prob(episode.query, episode.query_lengths)

    return score(log_prob, with_progress(batches, "scoring the optimum", "batches", progress), device, duplicates)


def _of_given(task: TaskDistribution, batches: EpisodeBatches) -> list[metadensity.Episode]:
    """The episodes, of whose queries only what is given counts."""
    return [replace(episode, query_lengths=task.given(episode.query)) for episode in batches]


def _weights(model: metadensity.FewShotModel) -> dict[str, Any]:
    """The hash of the weights, of a model that was loaded."""
    return {"weights_sha256": model.provenance.get("weights_sha256")}


def _fresh(name: str, taken: dict[str, Any]) -> str:
    """``name``, numbered where it is taken."""
    names = (name, *(f"{name} {number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in names if candidate not in taken)


if __name__ == "__main__":
    main(experiment)
