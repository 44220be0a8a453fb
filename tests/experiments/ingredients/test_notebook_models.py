"""Models of the notebooks: shipped weights first, then what an earlier call trained, then a training of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import metadensity
from experiments.ingredients import notebook_models
from experiments.ingredients.notebook_models import RECIPES, Recipe, model_for_notebook
from metadensity.models import MODELS
from metadensity.training import MetaTrainer, TrainingConfig
from tasks import TASKS

TINY = Recipe("templates", {"size": 4, "flip": 0.1, "classes": 3}, "unconditional", {"layers": 2, "planes": 2})
NAME = "tiny"


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Empty folders of weights and runs, one tiny recipe, and a list that grows with each training."""
    found: list[int] = []
    run = MetaTrainer.run

    def counted(self: MetaTrainer, *arguments: Any, **options: Any) -> Any:
        found.append(self.config.steps)
        return run(self, *arguments, **options)

    monkeypatch.setattr(MetaTrainer, "run", counted)
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path / "runs"))
    recipe = Recipe(TINY.task, TINY.task_options, TINY.model, TINY.model_options, {"steps": 2, "shots": (1,)})
    monkeypatch.setattr(notebook_models, "RECIPES", {NAME: recipe})
    return found


def weights(model: metadensity.FewShotModel) -> str:
    return str(model.provenance["weights_sha256"])


def test_it_trains_once_and_leaves_random_numbers_alone(trainings: list[int]) -> None:
    state = torch.get_rng_state()
    model, tasks = model_for_notebook(NAME, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert (tasks.name, tasks.split, tasks.event_shape) == ("templates", "test", (1, 4, 4))
    assert tasks.recipe["classes"] == 3
    again, _ = model_for_notebook(NAME, progress=False)
    assert weights(again) == weights(model)
    assert trainings == [2]


def test_another_recipe_or_a_damaged_file_is_trained_anew(
    trainings: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = model_for_notebook(NAME, progress=False)
    (kept,) = (tmp_path / "runs" / "notebooks").iterdir()
    kept.write_bytes(kept.read_bytes()[:-3])
    second, _ = model_for_notebook(NAME, progress=False)
    assert weights(second) == weights(first)
    longer = Recipe(TINY.task, TINY.task_options, TINY.model, TINY.model_options, {"steps": 3, "shots": (1,)})
    monkeypatch.setattr(notebook_models, "RECIPES", {NAME: longer})
    third, _ = model_for_notebook(NAME, progress=False)
    assert weights(third) != weights(first)
    assert trainings == [2, 2, 3]


def test_shipped_weights_come_first_with_the_task_they_were_trained_on(
    trainings: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_for_notebook(NAME, progress=False)  # is there as well, and is not taken
    train = TASKS["hershey"](split="train", size=9)
    shipped = MODELS["independent"](event_shape=train.event_shape, levels=2)
    sha256 = metadensity.save(shipped, tmp_path / "weights" / f"{NAME}.safetensors", {"task": train.recipe})
    monkeypatch.setattr(notebook_models, "shipped", lambda: {NAME: ""})
    monkeypatch.setattr(notebook_models, "shipped_file", lambda name: tmp_path / "weights" / f"{name}.safetensors")
    model, tasks = model_for_notebook(NAME)
    assert weights(model) == sha256
    assert (tasks.name, tasks.split, tasks.event_shape) == ("hershey", "test", (1, 9, 9))
    assert trainings == [2]


def test_unknown_names_and_runs_are_refused(trainings: list[int]) -> None:
    with pytest.raises(ValueError, match="no model 'tinny' for the notebooks; give one of tiny"):
        model_for_notebook("tinny")
    with pytest.raises(FileNotFoundError, match="no run"):
        model_for_notebook(NAME, run="17")
    assert trainings == []


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_can_be_built(name: str, request: pytest.FixtureRequest) -> None:
    recipe = RECIPES[name]
    if recipe.task == "speech":
        request.getfixturevalue("data_root")  # skips where there are no recordings
    train = TASKS[recipe.task](split="train", **recipe.task_options)
    MODELS[recipe.model](event_shape=train.event_shape, levels=train.levels, **recipe.model_options)
    config = TrainingConfig(**{**notebook_models.COMMON, **recipe.training})
    assert config.steps <= 400, "a notebook takes under a minute"
