"""Trainings on little: without validation classes, on two images a class; and classification of two classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import classify, train
from experiments.ingredients.task import build_task
from experiments.recording.mistakes import sentence
from experiments.recording.run_folder import RunFolder
from tasks import DataError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of seven classes, by the number of images in each."""
    rng, found = np.random.default_rng(0), {}
    for images in (2, 6):
        found[images] = tmp_path_factory.mktemp(f"of{images}")
        for kind in "abcdefg":
            (found[images] / kind).mkdir()
            for number in range(images):
                pixels = rng.integers(0, 256, (6, 6), dtype=np.uint8)
                Image.fromarray(pixels).save(found[images] / kind / f"{number}.png")
    return found


def task(folder: Path, **options: Any) -> dict[str, Any]:
    return {"name": "folder", "folder": str(folder), "size": 6, "grey": True, "levels": 2, **options}


def test_without_validation_the_newest_model_is_kept(script: Any, folders: dict[int, Path], tmp_path: Path) -> None:
    """A split that leaves no class for validation: it says so, and trains where it is told to do without."""
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"train": list("abcde"), "validation": [], "test": list("fg")}))
    config = {"task": task(folders[6], splits=str(splits)), "model": {"name": "conditional"}}
    done = script(train.experiment, "fast", validate=False, **config)
    run = RunFolder(done.result["folder"])
    assert done.result["validation/cautious"] is None
    assert run.model().provenance["step"] == 4
    assert Path(done.result["picture"]).is_file()
    assert not any("validation" in name for record in run.metrics() for name in record)

    # Two classes, which is fewer than the usual ways: as many as there are, and intervals over their twelve images.
    scored = script(classify.experiment, run=str(run.path), episodes=30)
    assert scored.result["ways"] == 2
    assert scored.result["over"] == [12, "images"]
    more = script(classify.experiment, run=str(run.path), episodes=120)
    width, narrower = (np.diff(each.result["nearest_neighbour"]["interval"])[0] for each in (scored, more))
    assert narrower > 0.6 * width  # as far as 30 episodes hold less than the images do
    with pytest.raises(ValueError, match=r"ways=5, but the test split of folder has 2 classes"):
        script(classify.experiment, run=str(run.path), ways=5)


def test_two_images_a_class(script: Any, folders: dict[int, Path]) -> None:
    """What is asked of too few is refused with what to type, and that works."""
    config = {"task": task(folders[2]), "model": {"name": "conditional"}}
    with pytest.raises(
        ValueError, match=r"smallest class of folder, train, has 2\. Type training.shots='\[0, 1\]' t"
    ) as error:
        script(train.experiment, "fast", training={"shots": [0, 1, 4]}, **config)
    assert "training.queries=1" in str(error.value)
    done = script(train.experiment, "fast", training={"shots": [0, 1], "queries": 1}, **config)
    assert done.result["steps"] == 4


def test_one_class_says_what_is_needed(script: Any, folders: dict[int, Path]) -> None:
    one = folders[6].parent / "one"
    (one / "a").mkdir(parents=True)
    for image in (folders[6] / "a").iterdir():
        (one / "a" / image.name).write_bytes(image.read_bytes())
    with pytest.raises(RuntimeError, match=r"1 classes; train and validation and test need one each, 3 together"):
        script(train.experiment, "fast", task=task(one), model={"name": "conditional"})


def test_what_the_task_says_is_typed_with_its_prefix(folders: dict[int, Path]) -> None:
    with pytest.raises(DataError, match=r"min_images=9") as found:
        build_task(task(folders[6], min_images=9), "train")
    assert sentence(found.value).endswith("On the command line: task.min_images=.")
