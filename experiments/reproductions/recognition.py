"""Recognition by likelihood alone: which of ten digits an unheard speaker says, which of six unheard speakers it is.

A query is of the class whose four recordings make it most likely. Nothing was chosen by the speakers of these tables.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import metadensity
from experiments.ingredients import build_model, build_task, training_config
from experiments.reporting.tables import Section
from experiments.reproductions.speech import HELD_OUT
from experiments.reproductions.trained import SHIPPED, kept
from experiments.results.shipped_weights import SUFFIX, shipped, shipped_file
from metadensity import FewShotModel
from metadensity.evaluation.classification import class_log_probs, classification
from metadensity.evaluation.comparison import IncomparableError
from metadensity.evaluation.cost import parameter_count
from metadensity.evaluation.nway import NWayEpisodes, stack_nway
from metadensity.files import read_header, write_atomically
from metadensity.progress import with_progress
from metadensity.training import MetaTrainer
from tasks import ImageTasks
from tasks.episodes.nway import draw_nway

LINEAR, SWITCHING = "linear_prediction", "switching_prediction"
FITTED = {LINEAR: "Linear prediction, 16 taps", SWITCHING: "Switching linear prediction, 16 states"}
"""Models that look at the training data and learn a few numbers, within a minute."""
_TRAINING: dict[str, Any] = {"tasks": 4, "queries": 1, "shots": [4], "warmup": 5, "average": 0.9, "validation_tasks": 4}
_STEPS: dict[str, dict[str, Any]] = {
    # as the baseline of the likelihoods: what makes recordings likely
    LINEAR: {"steps": 30, "window": 2048, "validate_every": 30, "checkpoint_every": 30},
    # what tells them apart: by likelihood alone it would trust the training data too much
    SWITCHING: {"steps": 20, "window": 4096, "validate_every": 20, "checkpoint_every": 20, "contrast": 1.0}
    | {"contrast_temperature": 20.0, "rivals": 3},
}


@dataclass(frozen=True)
class Recognition:
    """A table of recognition.

    task: what models are fitted to. tested, split: settings of what they are tested on that differ, and its split.
    ways, shots, queries, episodes: of the n-way episodes. within_group: whether a model is trained to tell classes of
    one group apart, words of a speaker. nets: titles of shipped nets, by their names.
    """

    name: str
    title: str
    task: Mapping[str, Any]
    ways: int
    queries: int
    episodes: int = 10
    shots: int = 4
    tested: Mapping[str, Any] = field(default_factory=dict)
    split: str = "test"
    within_group: bool = False
    nets: Mapping[str, str] = field(default_factory=dict)

    @property
    def titles(self) -> dict[str, str]:
        """What the rows are called, by the names of their models."""
        return {**{f"{self.name}-{name}": title for name, title in FITTED.items()}, **self.nets}

    def drawn(self, fast: bool, limit: int | None) -> NWayEpisodes:
        """The episodes, ``limit`` of them at most; fast: short ones of one query of each class."""
        built = build_task({**self.task, **self.tested, **(_SHORT if fast else {})}, self.split)
        assert isinstance(built, ImageTasks)
        number = self.episodes if limit is None else min(limit, self.episodes)
        queries = 1 if fast else self.queries
        return stack_nway([draw_nway(built, index, self.ways, self.shots, queries) for index in range(number)])

    def model(self, name: str, weights: str | None, fast: bool, progress: bool) -> FewShotModel:
        """A model of ``titles``: shipped, or of a folder, or fitted now, which its provenance tells."""
        if weights == SHIPPED and name in shipped() and not (fast and name not in self.nets):
            return metadensity.load(shipped_file(name))
        if weights not in (None, SHIPPED) and (path := Path(str(weights)) / f"{name}{SUFFIX}").is_file():
            return metadensity.load(path)
        return self._fitted(name.removeprefix(f"{self.name}-"), fast, progress)

    def _fitted(self, name: str, fast: bool, progress: bool) -> FewShotModel:
        updates: dict[str, Any] = {
            "task": {**self.task, **(_SHORT if fast else {})},
            "training": {**_TRAINING, **_STEPS[name]},
        }
        if name == SWITCHING and self.within_group:
            updates["training"]["rivals_within_group"] = True
        if fast:
            updates["training"] |= {"steps": 2, "window": 256}
        config, began = kept(("speech", name, "baseline"), updates), time.process_time()
        task = build_task(config["task"], "train")
        model = build_model(config["model"], task.event_shape, task.levels, config["seed"])
        trainer = MetaTrainer(model, task, None, training_config(config["training"], config["seed"]))
        fitted = trainer.run(progress=f"fitting {name}" if progress else "")
        steps = config["training"]["steps"]
        fitted.provenance = {"task": task.recipe, "split": task.split, "step": steps, "config": config}
        fitted.provenance |= {"cpu_seconds": time.process_time() - began}
        return fitted


_SHORT = {"length": 512}
_DIGITS = {"name": "speech", "by": "speaker+word", "length": 6000, "lengths": True}
RECOGNITION = (
    *(
        Recognition(
            name=f"digits_{speaker}",
            title=f"Ten digits by {speaker}, who was never heard",
            task={**_DIGITS, "held_out": speaker},
            ways=10,
            queries=3,
            within_group=True,
            nets={f"speech_{speaker}-wavenet": "WaveNet, f(s)"},
        )
        for speaker in HELD_OUT
    ),
    Recognition(
        name="speakers",
        title="Six speakers of digits, by models that heard others say other words",
        task={"name": "speech", "corpus": "commands", "by": "speaker", "length": 6000, "lengths": True},
        ways=6,
        queries=4,
        tested={"corpus": "fsdd"},
        split="train+validation+test",
    ),
)


def recognised(model: FewShotModel, episodes: NWayEpisodes, name: str, progress: bool) -> dict[str, Any]:
    """How many queries a model has right, as a record says it."""
    began, parts = time.process_time(), [episodes[i : i + 1] for i in range(len(episodes))]
    scores = [class_log_probs(model, part) for part in with_progress(parts, f"scoring {name}", "episodes", progress)]
    found = classification(np.concatenate(scores), episodes.label.numpy(), dependence=episodes.dependence())
    return {
        "accuracy": found.accuracy,
        "interval": list(found.accuracy_interval),
        "over": list(found.over),
        "nll": found.nll,
        "ways": found.ways,
        "shots": episodes.shots,
        "queries": found.queries,
        "episodes": found.episodes,
        "episodes_sha256": episodes.hash,
        "parameters": parameter_count(model),
        "weights_sha256": model.provenance.get("weights_sha256"),
        "config": model.provenance["config"],
        "cpu_seconds": model.provenance["cpu_seconds"],
        "cpu_seconds_to_score": time.process_time() - began,
    }


def save_fitted(model: FewShotModel, path: Path) -> str:
    """Write a fitted model with its provenance; returns the hash of its weights."""
    metadensity.save(model, path, model.provenance)
    return str(read_header(path)["sha256"])


def read_recognition(folder: Path, table: Recognition) -> dict[str, dict[str, Any]]:
    """The records there are of a table, by model. Raises IncomparableError where they are of different episodes."""
    paths = {name: folder / table.name / f"{name}.json" for name in table.titles}
    found = {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}
    if len({record["episodes_sha256"] for record in found.values()}) > 1:
        raise IncomparableError(f"The records of {table.name} in {folder} are of different episodes.")
    return found


def write_recognition(folder: Path, table: Recognition, name: str, record: Mapping[str, Any]) -> None:
    """Write the record of a model."""
    text = json.dumps(record, indent=1, allow_nan=False)
    write_atomically(folder / table.name / f"{name}.json", text.encode() + b"\n")


def section(table: Recognition, records: Mapping[str, Mapping[str, Any]]) -> Section:
    """The table of these records."""
    headings = ["model", "right, %", "95 % interval", "posterior, nats", "parameters", "seconds to train", "to score"]
    rows = []
    for name, record in records.items():
        low, high = record["interval"]
        rows.append(
            [
                table.titles[name],
                f"{100 * record['accuracy']:.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
                f"{record['nll']:.2f}",
                f"{record['parameters']:,}",
                f"{record['cpu_seconds']:.0f}",
                f"{record['cpu_seconds_to_score']:.0f}",
            ]
        )
    some = next(iter(records.values()))
    count, noun = some["over"]
    noun = "recordings" if noun == "images" else noun
    size = f"{some['ways']} ways, {some['shots']} shots, {some['queries']} queries in {some['episodes']} episodes"
    chance = f"{100 / some['ways']:.1f}"
    note = f"{size}; chance is {chance}. Intervals are over {count} {noun}; seconds are CPU time."
    return Section(table.title, headings, rows, [note])


def markdown(tables: Sequence[Recognition], folder: Path) -> str:
    """The tables of the records in ``folder``."""
    found = [(table, read_recognition(folder, table)) for table in tables]
    return "\n".join(section(table, records).markdown() for table, records in found if records)
