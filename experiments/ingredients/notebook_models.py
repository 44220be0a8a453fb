"""Models for the notebooks: the shipped weights where there are any, else a small model trained in seconds."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

import metadensity
from experiments.ingredients import build_task
from experiments.ingredients.task import TASK_OPTIONS, task_of
from experiments.recording.root import runs_root
from experiments.recording.trained_model import find_model
from experiments.results.shipped_weights import shipped, shipped_file
from metadensity.files import DamagedFileError
from metadensity.models import MODELS
from metadensity.training import MetaTrainer, TrainingConfig
from tasks import TASKS, TaskDistribution


@dataclass(frozen=True)
class Recipe:
    """A small model on an embedded task: names and options of both, and what differs from ``COMMON`` in training."""

    task: str
    task_options: Mapping[str, Any]
    model: str
    model_options: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)


COMMON: dict[str, Any] = {"tasks": 16, "queries": 1, "learning_rate": 5e-3, "warmup": 20, "average": 0.99}
RECIPES = {
    # Hershey glyphs of 14 x 14 pixels, each in 12 s on one core. The first follows its support much better.
    "hershey-aligned": Recipe(
        "hershey",
        {"size": 14},
        "aligned",
        {"layers": 4, "planes": 16, "map_features": 16, "attention": None},
        {"steps": 250, "shots": (1, 2, 4, 8), "withheld": 0.25},
    ),
    "hershey-attention": Recipe(
        "hershey",
        {"size": 14},
        "attention",
        {"layers": 4, "planes": 16, "attention": "dot"},
        {"steps": 250, "shots": (1, 2, 4, 8), "withheld": 0.25, "learning_rate": 1e-2},
    ),
    # Templates that lie in place, noisy enough for a second support to tell something: 8 s, and near the optimum.
    "templates-aligned": Recipe(
        "templates",
        {"smooth": 1.5, "flip": 0.25, "classes": 8, "shifts": 1},
        "aligned",
        {"layers": 3, "planes": 16},
        {"steps": 150, "tasks": 32, "queries": 2, "shots": (1, 2, 4, 8), "withheld": 0.25, "learning_rate": 1e-2},
    ),
    # Three steps of MAML, learned through: 10 s.
    "templates-maml": Recipe(
        "templates",
        {"smooth": 1.5, "flip": 0.1, "classes": 8, "shifts": 1},
        "maml",
        {"layers": 3, "planes": 12, "steps": 3, "step_size": 0.5},
        {"steps": 60, "tasks": 8, "queries": 4, "shots": (4,), "learning_rate": 1e-2},
    ),
    # Spoken digits, the 64 ms in the middle of each: 20 s. What it learns of short windows goes for whole recordings.
    "speech-wavenet": Recipe(
        "speech",
        {"length": 256, "rate": 4000, "by": "speaker"},
        "wavenet",
        {"layers": 8, "planes": 16, "dilations": (1, 2, 4, 8, 16, 32, 64), "likelihood": "logistic", "prediction": 16},
        {"steps": 350, "tasks": 8, "queries": 2, "shots": (1, 2, 4, 8), "learning_rate": 1e-2, "average": 0.98},
    ),
}


def model_for_notebook(
    name: str, run: str | int | None = None, progress: bool = True, **settings: Any
) -> tuple[metadensity.FewShotModel, TaskDistribution]:
    """A model in evaluation mode, and the test split of the task that it was trained on.

    name: of a recipe, which is also the name of the weights. Taken are, in this order, the shipped
    model of this name, the model that an earlier call trained (kept in ``notebooks`` of the runs folder), or one
    trained now.
    run: a trained model to take instead, as ``find_model`` finds it: a run, a file, or a shipped model's name.
    settings: of the task, in which it is to differ from that of the training, such as ``length`` of recordings.

    Raises ValueError for a name there is not, FileNotFoundError and DamagedFileError as ``find_model`` and
    ``metadensity.load`` do. A damaged model of an earlier call is trained anew.
    """
    if run is not None:
        found = find_model(run)
        return found.model(), task_of(found, "test", **settings)
    if name not in RECIPES:
        raise ValueError(f"There is no model {name!r} for the notebooks; give one of {', '.join(RECIPES)}.")
    if name in shipped():
        model = metadensity.load(shipped_file(name))
        return model, _test_task(model.provenance["task"], settings)
    recipe = RECIPES[name]
    said = json.dumps([asdict(recipe), COMMON], sort_keys=True)
    kept = runs_root() / "notebooks" / f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:12]}.safetensors"
    with contextlib.suppress(FileNotFoundError, DamagedFileError):
        model = metadensity.load(kept)
        return model, _test_task(model.provenance["task"], settings)
    train = TASKS[recipe.task](split="train", **recipe.task_options)
    kept.parent.mkdir(parents=True, exist_ok=True)
    metadensity.save(_trained(recipe, train, progress), kept, {"task": train.recipe, "split": "train", "seed": 0})
    return metadensity.load(kept), _test_task(train.recipe, settings)


def _trained(recipe: Recipe, train: TaskDistribution, progress: bool) -> metadensity.FewShotModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[recipe.model](event_shape=train.event_shape, levels=train.levels, **recipe.model_options)
    config = TrainingConfig(**{**COMMON, **recipe.training})
    return MetaTrainer(model, train, None, config).run(progress=progress)


def _test_task(recipe: Mapping[str, Any], settings: Mapping[str, Any]) -> TaskDistribution:
    """The test split of the task that ``recipe``, of another split, describes; checksums in it are no options."""
    said = {key: value for key, value in {**recipe, **settings}.items() if value is not None}
    return build_task({"name": recipe["task"], **TASK_OPTIONS.fitting(recipe["task"], said)}, "test")
