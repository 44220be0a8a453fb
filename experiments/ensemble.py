"""Trained models as one exact density: ``python -m experiments.ensemble with "members=['runs/2','runs/3']"``.

Members are runs, files or shipped models. The weights are those under which validation images are likeliest, a row for
each number of shots. The run folder gets ensemble.safetensors, which every command takes as a run:
``evaluate with run=runs/4/ensemble.safetensors``.
"""

from __future__ import annotations

from typing import Any

from sacred.run import Run

import metadensity
from experiments.ingredients.evaluation_episodes import EpisodeBatches, choose_episodes, pixel_identity
from experiments.ingredients.task import task_of
from experiments.recording.command_line import main, make_experiment
from experiments.recording.run_folder import folder_of
from experiments.recording.trained_model import find_model
from experiments.reporting.ensemble_weights import weight_lines
from metadensity.models import EnsemblePixelCNN
from metadensity.progress import with_progress

FILE = "ensemble.safetensors"
experiment = make_experiment("ensemble", named_configs={"fast": {"limit": 2, "shots": [0, 1, 2]}})


@experiment.config
def _defaults() -> None:
    members = list[str]()  # runs, files or shipped models' names, of the same task
    combine = "mixture"  # of whole images; or the "mean" or the "product" of conditionals
    weights = "fitted"  # by the number of shots; or "leave_one_out", of each task; or "equal"
    shots = [0, 1, 2, 4, 8]  # numbers of shots that have weights of their own
    limit = 120  # at most so many validation episodes, to fit weights with
    queries = None  # of each; None: the usual number
    tasks_per_batch = 16
    device = "cpu"
    progress = True  # whether a bar is shown


@experiment.main
def ensemble(
    members: list[str],
    combine: str,
    weights: str,
    shots: list[int],
    limit: int,
    queries: int | None,
    tasks_per_batch: int,
    device: str,
    progress: bool,
    _run: Run,
) -> dict[str, Any]:
    """Put the members together, fit and print their weights, write the file. Returns its path and the weights."""
    if len(members) < 2:
        raise ValueError(f"members={members}; give two models or more, as runs, files or shipped models' names.")
    found = [find_model(member) for member in members]
    tasks = [task_of(each, "validation") for each in found]
    identities = [pixel_identity(task) for task in tasks]
    for each, identity in zip(found, identities, strict=True):
        if identity != identities[0]:
            raise ValueError(
                f"{found[0].title} and {each.title} were trained on other pixels or classes than one another; give "
                "members of one task, with the same settings."
            )
    model = EnsemblePixelCNN.of([each.model(device) for each in found], combine, weights, anchors=shots)
    fitted: dict[int, list[float]] = {}
    if weights != "equal":
        task = tasks[0]
        chosen = choose_episodes(task, None, list(shots), queries, 1, limit, 0, limit)
        batches = EpisodeBatches(chosen, task, list(shots), tasks_per_batch)
        fitted = model.fit_weights(with_progress(batches, "weights", "batches", progress))
    path = folder_of(_run) / FILE
    first = found[0].model(device)
    known: dict[str, Any] = {key: first.provenance[key] for key in ("task", "split") if key in first.provenance}
    own = {key: value for key, value in model.config.items() if key not in ("event_shape", "levels")}
    config = {**found[0].config(), "model": {"name": "ensemble", **own}}
    metadensity.save(model, path, {**known, "config": config, "members": [str(each.path) for each in found]})
    print("\n".join([*weight_lines(model), f"python -m experiments.evaluate with run={path}"]))
    return {"file": str(path), "weights": {str(count): each for count, each in fitted.items()}}


if __name__ == "__main__":
    main(experiment)
