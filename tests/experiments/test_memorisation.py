"""``experiments.memorisation``, whole: a model that copies is caught by it, one that does not is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import metadensity
from experiments import memorisation, train
from experiments.recording.run_folder import RunFolder
from metadensity.evaluation.memorisation import closeness
from metadensity.models import SupportMixture


@pytest.fixture(scope="module")
def trained(script: Any) -> Path:
    run = script(train.experiment, "hershey", "attention", "fast", task={"size": 12})
    return Path(run.result["folder"])


@pytest.fixture(scope="module")
def copying(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model repeats its support images, one pixel in a thousand redrawn."""
    folder = tmp_path_factory.mktemp("copying") / "run"
    shutil.copytree(trained, folder)
    model = SupportMixture((1, 12, 12), 2)
    model.noise_logit.data.fill_(-7.0)
    model.prior_logit.data.fill_(-20.0)
    metadensity.save(model, RunFolder(folder).best, {})
    return folder


def test_it_completes_and_its_configuration_took_effect(trained: Path, script: Any) -> None:
    run = script(memorisation.experiment, "fast", run=str(trained))
    assert run.status == "COMPLETED"
    result = run.result
    assert (result["shots"], result["unseen_images"], len(result["class_names"])) == (4, 4, 4)
    test = result["tests"]["support"]
    assert (test["classes"], test["samples"], test["heldout"]) == (4, 4 * 2, 4 * 12)
    assert len(test["per_class"]) == 4
    folder = Path(result["folder"])
    assert json.loads((folder / "memorisation.json").read_text(), parse_constant=pytest.fail) == result
    text = (folder / "memorisation.md").read_text()
    assert "| 4 supports |" in text
    assert "| 4 unseen images |" in text
    with Image.open(result["picture"]) as picture:
        assert picture.mode == "RGB"
        assert picture.height == 4 * (12 + 2) * 3
        assert picture.width > 4 * 12 * 3
    again = script(memorisation.experiment, "fast", run=str(trained)).result
    assert again["tests"] == result["tests"]


def test_a_model_that_copies_is_caught(copying: Path, script: Any) -> None:
    result = script(memorisation.experiment, run=str(copying), classes=24, permutations=200).result
    assert result["closer"] is True
    support, unseen = result["tests"]["support"], result["tests"]["unseen"]
    assert support["auc"] > 0.95
    assert support["interval"][0] > 0.85
    assert support["sample_copies"] > 0.7
    assert unseen["closer"] is False
    assert result["verdict"] == "Samples are closer to the support than held-out images of the class are."


def test_real_held_out_images_are_not_accused(trained: Path, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command with other drawings of the class in place of samples."""
    monkeypatch.setattr(memorisation, "draw_samples", lambda model, episode, samples, seed: episode.query[-samples:])
    result = script(memorisation.experiment, run=str(trained), classes=24, permutations=200).result
    assert result["closer"] is False
    assert result["verdict"].startswith("No sign of copying")
    assert 0.4 < result["tests"]["support"]["auc"] < 0.6


def test_plain_samples_are_said_to_be_plain() -> None:
    near, far = closeness(np.zeros((3, 9)), np.ones((3, 9)), np.arange(9)), closeness(*np.ones((2, 3, 9)), np.arange(9))
    assert (near.closer, far.closer) == (True, False)
    assert "plainer" in memorisation.verdict(near, near)
    assert "plainer" not in memorisation.verdict(near, far)


def test_the_closest_pairs_come_first() -> None:
    support = torch.arange(6, dtype=torch.uint8).view(2, 3, 1, 1, 1)
    images = 10 + torch.arange(6, dtype=torch.uint8).view(2, 3, 1, 1, 1)
    distances, which = np.array([[0.5, 0.1, 0.9], [0.3, 0.2, 0.4]]), np.array([[0, 1, 0], [1, 0, 1]])
    supports, chosen = memorisation.closest(images, distances, which, support, shown=2)
    assert chosen.flatten().tolist() == [11, 13]  # task 1, image 0 at 0.1; task 0, image 1 at 0.3
    assert supports.flatten().tolist() == [4, 3]


def test_many_levels_and_few_classes(script: Any) -> None:
    run = script(train.experiment, "digits", "support_mean", "fast")
    result = script(memorisation.experiment, "fast", run=run.result["folder"]).result
    assert result["tests"]["support"]["classes"] == 2
    assert result["tests"]["support"]["heldout"] == 2 * 40


def test_tasks_that_draw_their_images(script: Any) -> None:
    run = script(train.experiment, "templates", "independent", "fast")
    result = script(memorisation.experiment, "fast", run=run.result["folder"], most_heldout=6).result
    assert result["tests"]["support"]["heldout"] == 4 * 6
    assert result["closer"] is False


def test_bad_input_is_named(trained: Path, script: Any) -> None:
    with pytest.raises(ValueError, match=r"shots=0; give at least 1"):
        script(memorisation.experiment, "fast", run=str(trained), shots=0)
    with pytest.raises(ValueError, match=r"shots=19 leave 1 images of the smallest class of hershey.*at most 18 shots"):
        script(memorisation.experiment, "fast", run=str(trained), shots=19)
    with pytest.raises(ValueError, match=r"samples=0; give at least 1"):
        script(memorisation.experiment, "fast", run=str(trained), samples=0)
