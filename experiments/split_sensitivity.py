"""How much of a number is the split: ``python -m experiments.split_sensitivity with omniglot attention quarter_hour``

trains the same model with the same recipe on several splits drawn at random (``split_seeds``) of each of several kinds:

class        within groups: characters are held out of alphabets that training knows
group        across groups: whole alphabets are held out
committed    the task's own split, which is one

and scores each on its own test split. Each training is a recorded run of experiments.train; finished ones are taken
with ``runs='["runs/1", ...]'``. The standard deviation between splits stands beside the interval that one split gives.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from sacred.run import Run

import metadensity
from experiments.figures.grids import split_points
from experiments.figures.shot_curves import save_figure
from experiments.ingredients import NAMED_CONFIGS, build_task, model, task, training, training_config
from experiments.ingredients.evaluation import evaluation_settings, place_settings, require_evaluation_settings
from experiments.ingredients.evaluation_episodes import EpisodeBatches, choose_episodes, pixel_identity
from experiments.ingredients.task import task_of
from experiments.recording import lineage
from experiments.recording.command_line import main, make_experiment
from experiments.recording.comparability import UNITS
from experiments.recording.run_folder import folder_of
from experiments.reporting.tables import bounds, finite_record, marked
from experiments.studies.split_report import KINDS, Scored, report, spread_records, spreads
from experiments.studies.training_runs import find_runs, in_words, other_settings, train_run, write_results
from metadensity.evaluation.comparison import IncomparableError
from metadensity.progress import with_progress
from tasks import TASKS

_FAST = {**NAMED_CONFIGS["fast"], "split_seeds": [0, 1], "shots": [0, 2], "queries": 2, "limit": 8}
experiment = make_experiment("split_sensitivity", [task, model, training], {**NAMED_CONFIGS, "fast": _FAST})
experiment.config(evaluation_settings)
experiment.config(place_settings)
experiment.check(require_evaluation_settings)


@experiment.config
def _defaults() -> None:
    kinds = ["class", "group"]  # of KINDS; differences are to the first
    split_seeds = [0, 1, 2]  # a split each
    runs = list[str]()  # finished runs of experiments.train, in place of training
    shots = [0, 1, 2, 4, 8]  # in the test


@experiment.main
def split_sensitivity(
    task: dict[str, Any],
    model: dict[str, Any],
    training: dict[str, Any],
    kinds: list[str],
    split_seeds: list[int],
    runs: list[str | int],
    split: str,
    shots: list[int],
    queries: int | None,
    draws: int,
    limit: int | None,
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
    """Train or take the models, score them; print the tables, write JSON, CSV, Markdown and a plot."""
    output = folder_of(_run)
    found = find_runs(runs)
    planned = [] if found else plan(task, kinds, split_seeds)
    training_config(training, seed)  # found out before hours of training, not after
    for config in planned:
        choose_episodes(build_task(config, split), None, shots, queries, draws, limit, seed, 1)
    for config in planned:
        print(f"Training on {config.get('split_by') or 'the committed split'}, seed {config.get('split_seed', 0)}.")
        settings = {"task": config, "model": model, "training": training, "seed": seed}
        found.append(train_run(_run, settings, progress))
    unequal = other_settings(found, ["task.split_by", "task.split_seed"])
    if unequal:
        raise IncomparableError(
            f"The runs differ in more than their split ({in_words(unequal)}). Give runs of one recipe."
        )
    lineage.record_use(_run, output, "split sensitivity", found)
    scored = []
    for run in found:
        config = run.config()["task"]
        tested = task_of(run, split, data_root, folder)
        chosen = choose_episodes(tested, None, shots, queries, draws, limit, seed, 1)
        batches = EpisodeBatches(chosen, tested, sorted(set(shots)), tasks_per_batch)
        kind, split_seed = config.get("split_by") or "committed", config.get("split_seed", 0)
        stream = with_progress(batches, f"scoring {kind} {split_seed}", "batches", progress)
        evaluation = metadensity.evaluate(run.model(device), stream, precision, duplicates)
        train = task_of(run, "train", data_root, folder)
        shared = len({*tested.group_names} & {*train.group_names}), len(tested.group_names)
        about = len(train.class_names), chosen.hash, pixel_identity(tested)
        scored.append(Scored(run, kind, split_seed, *about, evaluation, shared))
    likelihoods, gains = spreads(scored)
    words = tested.medium.words
    name = marked(found[0].config()["model"]["name"], scored[0].evaluation.scores)
    title = f"{name} on {found[0].config()['task']['name']}, {split}"
    sections = report(title, scored, likelihoods, gains, words)
    print("\n" + "\n".join(section.plain() for section in sections))
    rows = [_record(one, row) for one in scored for row in one.evaluation.rows]
    result = {
        "units": UNITS,
        "split": split,
        "task": {key: value for key, value in found[0].config()["task"].items() if not key.startswith("split_")},
        "splits": [
            {"run": str(one.run.path), "kind": one.kind, "split_seed": one.split_seed, "pixels": one.pixels}
            | {"test_groups_in_training": one.shared[0], "test_groups": one.shared[1]}
            | {"train_classes": one.train_classes, "episodes_sha256": one.episodes_sha256}
            for one in scored
        ],
        "rows": rows,
        "spread": spread_records(likelihoods, "nats/image") + spread_records(gains, "gain"),
        "folder": str(output),
    }
    write_results(output / "split_sensitivity", result, rows, sections)
    points = {
        KINDS[kind]: [{row.shots: row for row in one.evaluation.rows} for one in scored if one.kind == kind]
        for kind in likelihoods
    }
    save_figure(split_points(points, title, words.nats), output / "split_sensitivity.png")
    return result


def plan(task: Mapping[str, Any], kinds: Sequence[str], split_seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The task's configuration on every split asked for.

    Raises ValueError where there is none, one is asked for twice, or the kind is not known.
    """
    for name, values in (("kinds", kinds), ("split_seeds", split_seeds)):
        if isinstance(values, str) or not values or len(set(values)) < len(values):
            raise ValueError(f"{name}={values!r}; give a list of at least one, each once.")
    if not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds={list(kinds)}; choose of {', '.join(KINDS)}.")
    if set(kinds) != {"committed"} and "split_by" not in inspect.signature(TASKS[task["name"]]).parameters:
        able = [name for name, factory in TASKS.items() if "split_by" in inspect.signature(factory).parameters]
        raise ValueError(f"{task['name']} has no random splits; {', '.join(able)} have.")
    plain = {key: value for key, value in task.items() if key not in ("split_by", "split_seed")}
    planned: list[dict[str, Any]] = []
    for kind in kinds:
        if kind == "committed":
            planned.append({**plain, **({"split_by": None} if "split_by" in task else {})})
        else:
            planned += [{**plain, "split_by": kind, "split_seed": number} for number in split_seeds]
    return planned


def _record(one: Scored, row: Any) -> dict[str, Any]:
    low, high = bounds(row.interval)
    group_low, group_high = bounds(row.group_interval)
    return {
        "kind": one.kind,
        "split_seed": one.split_seed,
        "run": str(one.run.path),
        "train_classes": one.train_classes,
        **{
            name: value
            for name, value in finite_record(row).items()
            if name in ("shots", "nats_per_image", "nats_per_dim", "images", "classes", "quantity", "impossible")
        },
        "groups": row.groups,
        "interval_low": low,
        "interval_high": high,
        "group_interval_low": group_low,
        "group_interval_high": group_high,
    }


if __name__ == "__main__":
    main(experiment)
