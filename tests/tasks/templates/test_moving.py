"""Moving templates: films are what they say, and the optimum is the sum over templates, shifts and velocities."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metadensity import Episode
from metadensity.testing.checks_density import table
from tasks import SPLITS, TASKS
from tasks.templates import MovingTemplateTasks

SMALL: dict[str, Any] = {"size": 3, "frames": 2, "classes": 3, "shifts": 5, "velocities": 3, "flip": 0.2, "ink": 0.4}


def make(**options: Any) -> MovingTemplateTasks:
    task = TASKS["moving_templates"](**options)
    assert isinstance(task, MovingTemplateTasks)
    return task


def naive_film(
    task: MovingTemplateTasks, film: Tensor, number: int, shift: tuple[int, int], way: tuple[int, int]
) -> float:
    """p(film | template, shift, velocity), pixel by pixel."""
    size, total = task.event_shape[-1], 1.0
    for frame, row, column in itertools.product(range(task.frames), range(size), range(size)):
        down, right = (s + frame * v for s, v in zip(shift, way, strict=True))
        clean = bool(task.templates[number, (row - down) % size, (column - right) % size])
        total *= 1 - task.flip if bool(film[0, frame, row, column]) == clean else task.flip
    return total


def naive_given_class(task: MovingTemplateTasks, film: Tensor, number: int) -> float:
    pairs = list(itertools.product(task.shifts, task.velocities))
    return sum(naive_film(task, film, number, *pair) for pair in pairs) / len(pairs)


@pytest.mark.parametrize("shots", [0, 1, 2])
def test_the_optimum_is_the_sum_by_hand(shots: int) -> None:
    task = make(**SMALL)
    episode = task.episode(0, tasks=2, shots=shots, queries=2)
    found = task.optimum(episode).log_prob(episode.query)
    for query, number in itertools.product(range(2), range(2)):
        given = [
            math.prod(naive_given_class(task, shot, c) for shot in episode.support[:, number])
            for c in range(task.classes)
        ]
        film = episode.query[query, number]
        expected = sum(p * naive_given_class(task, film, c) for c, p in enumerate(given)) / sum(given)
        assert found[query, number].item() == pytest.approx(math.log(expected), rel=1e-12)


def test_a_film_of_one_frame_is_an_image_of_templates() -> None:
    """The same bitmaps, so the same optimum, which sums to one over all 512 images."""
    still = TASKS["templates"](size=3, classes=4, shifts=9, flip=0.1, ink=0.4)
    moving = make(size=3, frames=1, classes=4, shifts=9, velocities=1, flip=0.1, ink=0.4)
    episode = moving.episode(1, tasks=2, shots=1, queries=1)
    optimum = table(moving.optimum(episode))
    assert optimum.logsumexp(0).abs().max() < 1e-12
    flat = Episode(episode.support.squeeze(3), episode.query.squeeze(3))
    torch.testing.assert_close(table(still.optimum(flat)), optimum, rtol=0, atol=1e-12)


def test_films_move_by_their_velocity_and_nothing_else() -> None:
    """Almost without flips each frame is the one before it, moved; all velocities come, all places, all templates."""
    task = make(size=6, flip=1e-9, classes=5)
    films = task.episode(0, tasks=600, shots=0, queries=1).query[0, :, 0].numpy()
    seen = set()
    for film in films:
        ways = [
            way
            for way in task.velocities
            if all((np.roll(a, way, (0, 1)) == b).all() for a, b in itertools.pairwise(film))
        ]
        assert len(ways) == 1
        seen.add(ways[0])
    assert seen == set(task.velocities)
    begun = {film[0].tobytes() for film in films}
    assert begun == {
        np.roll(each, at, (0, 1)).astype(np.uint8).tobytes() for each in task.templates for at in task.shifts
    }


def test_the_later_frames_are_nearly_known() -> None:
    """What is not known is the shift, in the first frame, and the velocity, in the second; then there is but noise."""
    task = make(flip=1e-4, classes=6)
    episode = task.episode(0, tasks=100, shots=4, queries=1)
    terms = -task.optimum(episode).conditional_log_probs(episode.query)[0, :, 0].flatten(2).sum(-1).mean(0)
    noise = task.noise_entropy / task.frames
    for frame, more in enumerate((math.log(9), math.log(9), 0.0, 0.0)):
        assert terms[frame].item() == pytest.approx(noise + more, abs=0.3)


def test_it_is_what_it_says() -> None:
    task = make(split="validation")
    assert (task.name, task.split, task.event_shape, task.levels) == ("moving_templates", "validation", (1, 4, 8, 8), 2)
    assert (task.classes, task.variants, len(task.shifts), len(task.velocities)) == (64, 81, 9, 9)
    assert task.recipe["velocities"] == 9
    assert (task.templates == TASKS["templates"]().templates).all()
    assert make(velocities=5).velocities == [(0, 0), (-1, 0), (0, -1), (0, 1), (1, 0)]
    assert len({make(split=split).fingerprint for split in SPLITS}) == 1
    for options in ({"frames": 5}, {"flip": 0.06}, {"shifts": 5}, {"velocities": 5}, {"template_seed": 1}):
        assert make(**options).fingerprint != task.fingerprint
    assert not torch.equal(make(split="test").episode(0, 2, 1, 1).query, task.episode(0, 2, 1, 1).query)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"velocities": 50}, "velocities=50 with size=8; give at most 49: no two of them may be the same"),
        ({"shifts": 2, "size": 2}, "shifts=2 with size=2; give at most 1"),
        ({"frames": 0}, "frames=0; give at least 1"),
        ({"flip": 0.0}, "flip=0.0; give the chance of a pixel"),
        ({"split": "dev"}, "split='dev' is not a split of moving_templates"),
    ],
    ids=str,
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_a_support_of_other_films_is_named() -> None:
    with pytest.raises(ValueError, match=r"support has shape \(1, 2, 1, 5, 8, 8\); moving_templates takes"):
        make().optimum(make(frames=5).episode(0, 2, 1, 1))
