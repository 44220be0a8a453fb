"""Pictures show the data as they are: black ink on white of the user's own is that, and so is ink that is 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import memorisation, sample, train
from experiments.figures.attention_maps import foreground
from experiments.recording.event_files import read_events
from experiments.recording.run_folder import RunFolder
from metadensity.files import read_tensors
from tasks import TASKS

SIDE, CLASSES, IMAGES = 12, 12, 6


def drawing(number: int, image: int) -> Any:
    """Black on white: a stroke that the class decides, moved by the image; 1 where the paper is white."""
    pixels = np.ones((SIDE, SIDE), bool)
    pixels[number % 4 + image % 3, :] = pixels[1:3, number % 5] = False
    return pixels


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("letters")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.data.roots.user_cache", lambda: root.parent / "cache of letters")
        for number in range(CLASSES):
            for image in range(IMAGES):
                path = root / f"letter {number}" / f"{image}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(drawing(number, image)).save(path)
        yield root


@pytest.fixture(scope="module", params=["folder", "hershey"])
def trained(request: pytest.FixtureRequest, script: Any, letters: Path) -> tuple[RunFolder, bool]:
    """A run, and whether 1 is ink there."""
    task: dict[str, Any] = {"size": SIDE}
    if request.param == "folder":
        task |= {"folder": str(letters), "grey": True, "levels": 2}
    run = script(train.experiment, request.param, "attention", "fast", task=task, model={"attention": "dot"})
    return RunFolder(run.result["folder"]), request.param == "hershey"


def pixels_of(path: str | Path) -> Any:
    """The pixels of a PNG that was written three times as large."""
    with Image.open(path) as picture:
        return np.asarray(picture)[1::3, 1::3]


def cell(picture: Any, row: int, column: int) -> Any:
    """An image of a grid, without the line after the supports; grey."""
    return picture[row * (SIDE + 2) + 1 :, column * (SIDE + 2) + 1 :][:SIDE, :SIDE]


def test_supports_samples_and_completions(trained: tuple[RunFolder, bool], script: Any) -> None:
    run, ink = trained
    for observed in (None, "top"):
        result = script(sample.experiment, run=str(run.path), tasks=1, shots=2, samples=2, observed=observed).result
        held, picture = read_tensors(result["tensors"])[0], pixels_of(result["picture"])
        for number in range(2):
            expected = held["support"][number, 0, 0].numpy() * 255
            shown = cell(picture, 0, number)
            assert (shown == (255 - expected if ink else expected)[..., None]).all()
        first = (held["samples"] if observed is None else held["query"])[0, 0, 0].numpy() * 255
        right = picture[:, 2 * (SIDE + 2) + 1 :]
        assert (cell(right, 0, 0) == (255 - first if ink else first)[..., None]).all()
        assert ink or cell(picture, 0, 0).mean() > 127, "paper is white"


def test_grids_and_attention_maps_of_training(trained: tuple[RunFolder, bool]) -> None:
    run, _ = trained
    events = read_events(run.path / "tensorboard")
    for path in ("validation.png", "attention.png"):
        picture = pixels_of(run.path / "samples" / path)
        blue = cell(picture, 0, 0)[..., 2]
        assert (blue == 255).mean() > 0.5, "paper is white"
        assert (blue < 128).any(), "and ink is not"
    assert len(events.Tags()["images"]) == 2


def test_copies_beside_their_supports(trained: tuple[RunFolder, bool], script: Any) -> None:
    run, _ = trained
    result = script(memorisation.experiment, "fast", run=str(run.path), shots=1).result
    assert (cell(pixels_of(result["picture"]), 0, 0)[..., 0] == 255).mean() > 0.5


def test_the_foreground_is_the_ink_whatever_its_level(letters: Path) -> None:
    task: Any = TASKS["folder"](split="train", folder=letters, size=SIDE, grey=True, levels=2)
    assert not task.ink
    images = task.pixels(range(4))
    assert (foreground(images) == 1 - images[:, 0].float()).all()
    assert (foreground(1 - images, ink=True) == foreground(images)).all()
    assert TASKS["templates"](split="test").ink
