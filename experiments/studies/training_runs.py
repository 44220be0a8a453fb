"""Training runs of a study: trained now or found, their differing settings, the result files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.run import Run

from experiments import train
from experiments.ingredients import read_config
from experiments.recording.command_line import recorded_in
from experiments.recording.flat_configs import differences
from experiments.recording.root import runs_root
from experiments.recording.run_folder import RunFolder
from experiments.recording.trained_model import TrainedModel, find_model
from experiments.reporting.tables import Section
from metadensity.files import DamagedFileError, write_atomically


def train_run(run: Run, config: Mapping[str, Any], progress: bool, named: Sequence[str] = ()) -> RunFolder:
    """Train by ``experiments.train``, recorded beside ``run`` as a run of its own, whose number ``run`` records.

    config: values of task, model and training, the seed, and others of the experiment. named: its named
    configurations. Raises as the training does.
    """
    folders = [Path(observer.dir).parent for observer in run.observers if isinstance(observer, FileStorageObserver)]
    updates = {"resume": None, **config, "progress": progress}
    with recorded_in(train.experiment, folders[0] if folders else runs_root()):
        trained = RunFolder(train.experiment.run(config_updates=updates, named_configs=named).result["folder"])
    run.info.setdefault("trainings", []).append(trained.path.name)
    return trained


def find_runs(runs: Iterable[str | int]) -> list[TrainedModel]:
    """Finished training runs, each with its best model.

    Raises ValueError where one is named twice, FileNotFoundError or DamagedFileError where one is no training run.
    """
    found = [find_model(run) for run in runs]
    if len({folder.path.resolve() for folder in found}) < len(found):
        raise ValueError(f"runs={list(runs)} names a run twice. Give each run once.")
    for folder in found:
        if not folder.best.is_file():
            raise FileNotFoundError(f"{folder.path} holds no trained model; give runs of experiments.train.")
        absent = [key for key in ("task", "model", "training", "seed") if key not in folder.config()]
        if absent:
            raise DamagedFileError(f"{folder.path}/config.json names no {absent[0]}; give runs of experiments.train.")
    return found


def other_settings(runs: Iterable[TrainedModel], apart_from: Iterable[str]) -> dict[str, list[Any]]:
    """What the trainings differ in besides ``apart_from``: by setting, the value of each run.

    A comparison along one setting is only of that setting where this is empty.
    """
    kept = ("task", "model", "training", "seed")
    configs = [read_config({key: run.config()[key] for key in kept}) for run in runs]
    ignored = {"task.data_root", *apart_from}
    names = {name for config in configs[1:] for name in differences(configs[0], config)} - ignored
    return {name: [_value(config, name) for config in configs] for name in sorted(names)}


def in_words(settings: Mapping[str, Sequence[Any]]) -> str:
    """What ``other_settings`` found, as part of a sentence."""
    return "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in settings.items())


def write_results(
    stem: Path, result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], sections: Iterable[Section]
) -> None:
    """``stem`` as .json (all of it), .csv (the rows; a list in a cell is separated by spaces) and .md (the tables)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()})
    write_atomically(stem.with_suffix(".json"), json.dumps(result, indent=1, allow_nan=False).encode())
    write_atomically(stem.with_suffix(".csv"), text.getvalue().encode())
    write_atomically(stem.with_suffix(".md"), "\n".join(section.markdown() for section in sections).encode())


def _value(config: Mapping[str, Any], name: str) -> Any:
    found: Any = config
    for key in name.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
