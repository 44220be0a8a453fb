"""Volumes in experiments: trained on, sampled, completed, reported, and shown as films."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import evaluate, sample, train
from experiments.figures.images import gif
from experiments.figures.shown import Events, films, grid
from experiments.figures.surprise import surprise_figure
from experiments.recording.event_files import read_events
from experiments.recording.run_folder import RunFolder
from experiments.run_page.parts import Page
from metadensity.files import read_tensors
from tasks.media import Images, Volumes, usual_medium

TASK = {"name": "moving_templates", "size": 4, "frames": 3, "classes": 4, "shifts": 3, "velocities": 3}


@pytest.fixture(scope="module")
def trained(script: Any) -> RunFolder:
    run = script(train.experiment, "moving_templates", "attention", "dot", "fast", task=TASK)
    return RunFolder(run.result["folder"])


def frames_of(data: bytes) -> list[np.ndarray]:
    with Image.open(io.BytesIO(data)) as film:
        assert film.format == "GIF"
        found = []
        for number in range(film.n_frames):
            film.seek(number)
            found.append(np.asarray(film.convert("RGB")))
    return found


def test_a_gif_has_every_frame_as_it_is() -> None:
    film = torch.randint(0, 2, (5, 6, 7, 1), generator=torch.Generator().manual_seed(0)).mul(255).byte()
    film = film.expand(-1, -1, -1, 3).numpy()
    read = frames_of(gif(film, zoom=2))
    assert len(read) == 5
    for frame, shown in zip(film, read, strict=True):
        assert (shown == frame.repeat(2, 0).repeat(2, 1)).all()


def test_a_film_is_the_grid_of_each_frame() -> None:
    events = torch.randint(0, 2, (3, 2, 1, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    medium = Volumes(2, ink=True)
    moving = films(medium, [Events("support", events[:2]), Events("sample", events[2:], block=1)])
    assert moving is not None
    assert len(moving) == 4
    for frame in range(4):
        still = [Events("support", events[:2, :, :, frame]), Events("sample", events[2:, :, :, frame], block=1)]
        assert (moving[frame] == grid(Images(2, ink=True), still)).all()
    assert films(Images(2), [Events("support", events[:2, :, :, 0])]) is None


def test_the_picture_of_a_volume_has_its_frames_side_by_side() -> None:
    event = torch.arange(24).view(1, 2, 3, 4)
    medium = usual_medium((1, 2, 3, 4), 24)
    assert isinstance(medium, Volumes)
    assert (medium.words.nats, medium.words.nats_per_dim) == ("nats/volume", "nats/voxel")
    picture = medium.picture(event)
    assert picture.shape == (3, 9, 3)
    assert (picture[:, :4] == Images(24).picture(event[:, 0])).all()
    assert (picture[:, 5:] == Images(24).picture(event[:, 1])).all()
    with pytest.raises(ValueError, match="are no film; give"):
        medium.picture(event[0])


def test_samples_are_a_picture_and_a_film(trained: RunFolder, script: Any) -> None:
    result = script(sample.experiment, run=str(trained.path), tasks=2, shots=1, samples=2).result
    held, _ = read_tensors(result["tensors"])
    assert held["samples"].shape == (2, 2, 1, 3, 4, 4)
    shown = frames_of(Path(result["film"]).read_bytes())
    assert len(shown) == 3
    assert Path(result["picture"]).is_file()
    zoom, gap = 3, 1
    first = shown[1][gap * zoom :: zoom, gap * zoom :: zoom][:4, :4, 0]  # the first support's second frame
    assert (first == 255 - 255 * held["support"][0, 0, 0, 1].numpy()).all()


def test_a_film_is_completed_from_its_first_frames(trained: RunFolder, script: Any) -> None:
    result = script(sample.experiment, run=str(trained.path), tasks=2, shots=1, samples=2, observed="top").result
    held, _ = read_tensors(result["tensors"])
    known = held["query"][:, :, :, :1]
    assert (held["samples"][:, :, :, :1] == known).all(), "one of three frames is half of them, rounded down"


def test_tensorboard_has_the_film(trained: RunFolder) -> None:
    events = read_events(trained.path / "tensorboard")
    tag = "support beside samples, in motion"
    assert set(events.Tags()["images"]) == {tag, "support beside samples"}
    (event,) = events.Images(tag)
    shown = frames_of(event.encoded_image_string)
    assert len(shown) == 3
    assert shown[0].shape == (event.height, event.width, 3)
    assert shown[0].tobytes() != shown[1].tobytes()


def test_scores_are_beside_the_optimum_and_the_page_shows_films(trained: RunFolder, script: Any) -> None:
    script(evaluate.experiment, run=str(trained.path), limit=4, tasks_per_batch=2)
    page = Page(trained.path)
    assert "data:image/gif;base64" in page.samples().data
    assert "nats/volume" in page.likelihood().data


def test_what_each_voxel_costs_is_shown_beside_it() -> None:
    event = torch.zeros(2, 1, 3, 4, 5, dtype=torch.long)
    costs = torch.arange(2 * 60.0).view(2, 3, 4, 5)
    figure = surprise_figure(Volumes(2), event, {"nats": costs})
    assert [axis.images[0].get_array().shape[:2] for axis in figure.axes] == [(4, 17), (4, 17), (4, 15), (4, 15)]
    assert (figure.axes[2].images[0].get_array()[:, 5:10] == costs[0, 1].numpy()).all()
