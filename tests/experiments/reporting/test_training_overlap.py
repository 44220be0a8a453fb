"""What an evaluation says of images and groups that the test shares with training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import classify, train
from experiments.reporting.training_overlap import shared_groups, training_overlap
from metadensity import Evaluation
from metadensity.evaluation.intervals import clustered_mean
from metadensity.evaluation.scores import Scores
from tasks import TASKS, ImageTasks


def made(split: str, images: np.ndarray, groups: list[str], levels: int = 2) -> ImageTasks:
    """Classes of two images each, a class a group."""
    count = len(images) // 2
    return ImageTasks(
        "made",
        split,
        0,
        images=images,
        labels=np.repeat(np.arange(count), 2),
        class_names=[f"c{i}" for i in range(count)],
        group_names=groups,
        class_group=list(range(count)),
        event_shape=(1, 3, 3),
        levels=levels,
        group_noun="hand",
        recipe={},
    )


@pytest.fixture(params=[2, 7])
def pair(request: Any) -> tuple[ImageTasks, ImageTasks]:
    """Training and test, of which images 1 and 4 are equal to images of training."""
    generator = np.random.default_rng(0)
    train, test = (generator.integers(0, request.param, (count, 1, 3, 3), dtype=np.uint8) for count in (8, 6))
    test[[1, 4]] = train[[5, 0]]
    return (
        made("train", train, ["a", "b", "c", "d"], request.param),
        made("test", test, ["e", "b", "f"], request.param),
    )


def scored(count: int) -> Evaluation:
    ids = np.arange(count)
    return Evaluation([], {s: Scores(10.0 * s + ids, ids // 2, ids // 2, ids) for s in (0, 4)})


def test_the_row_without_images_that_training_has(pair: tuple[ImageTasks, ImageTasks]) -> None:
    train, test = pair
    assert test.equal_to_one_of(train).tolist() == [False, True, False, False, True, False]
    found = training_overlap(test, train, scored(6))
    assert (found.groups, found.of_groups, found.images, found.of_images) == (["b"], 3, 2, 6)
    kept = np.array([0, 2, 3, 5])
    assert found.without == {s: clustered_mean(10.0 * s + kept, kept // 2) for s in (0, 4)}
    first, second = found.notes(test)
    assert first == "1 of 3 hands are in training as well: b."
    assert second.startswith("2 of 6 images of test are equal to a training image. Without them as queries")
    assert "2.50 at 0" in second
    assert "42.50 at 4" in second
    assert [row["nats_per_image"] for row in found.record()["rows_without_them"]] == [2.5, 42.5]


def test_nothing_shared_is_said_as_well(pair: tuple[ImageTasks, ImageTasks]) -> None:
    train, _ = pair
    other = made("test", (train.levels - 1 - train.pixels(range(8)).numpy())[:2], ["z"], train.levels)
    if train.levels == 2:
        assert not other.equal_to_one_of(train).any()
    found = training_overlap(other, train, scored(2))
    assert found.notes(other) == ["No image of test is equal to a training image."]
    assert found.record()["rows_without_them"] == []


def test_images_of_another_kind_cannot_be_equal(pair: tuple[ImageTasks, ImageTasks]) -> None:
    with pytest.raises(ValueError, match="only images of one kind can be equal"):
        pair[0].equal_to_one_of(TASKS["hershey"](split="test", size=8))


def test_a_task_without_images_of_its_own_says_nothing() -> None:
    task = TASKS["templates"](split="test")
    found = training_overlap(task, task, scored(2))
    assert (found.notes(task), found.record()["of_images"]) == ([], 0)


def test_any_split_says_how_many_groups_its_parts_share(pair: tuple[ImageTasks, ImageTasks]) -> None:
    train, test = pair
    assert shared_groups(test, train) == ["1 of 3 hands are in training as well: b."]
    assert shared_groups(train, train) == ["4 of 4 hands are in training as well: a, b, c, d."]
    assert shared_groups(made("test", train.pixels(range(4)).numpy(), ["y", "z"], train.levels), train) == [
        "0 of 2 hands are in training as well."
    ]
    assert shared_groups(made("test", train.pixels(range(2)).numpy(), ["a"], train.levels), train) == []
    of_classes = (TASKS["hershey"](split=split, size=12, split_by="class") for split in ("test", "train"))
    (said,) = shared_groups(*of_classes)
    assert re.fullmatch(r"(\d+) of \1 fonts are in training as well: ([^,]+, ){5}\.\.\.\.", said)
    templates = TASKS["templates"](split="test")
    assert shared_groups(templates, templates) == []


def test_training_and_classification_say_it(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    task = {"size": 12, "split_by": "class"}
    run = script(train.experiment, "hershey", "independent", "fast", task=task).result["folder"]
    assert re.search(r"Of validation, (\d+) of \1 fonts are in training as well: ", capsys.readouterr().out)
    found = script(classify.experiment, "fast", run=run).result
    text = (Path(found["folder"]) / "classification.md").read_text()
    assert re.search(r"(\d+) of \1 fonts are in training as well: ", text)
