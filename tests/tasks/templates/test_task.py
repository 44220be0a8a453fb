"""Templates: episodes as pure functions, what options do, and what is said of bad ones."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from metadensity import Density, Episode
from metadensity.testing.checks_density import goodness_of_fit
from tasks import SPLITS, TASKS, TaskDistribution, TemplateTasks
from tasks.testing import counts_are_refused

FALSE_ALARM = 1e-4  # of the chi-square test, if its seed were drawn anew; the seed is fixed


def make(**options: Any) -> TemplateTasks:
    task = TASKS["templates"](**options)
    assert isinstance(task, TemplateTasks)
    return task


def test_smooth_templates_are_blots_with_the_same_ink() -> None:
    """Neighbours agree more often, around the edges as well; independent pixels agree 1 - 2 * 0.3 * 0.7 = 0.58."""
    rough, smooth = make(classes=200).templates, make(classes=200, smooth=1.0).templates
    for templates, low, high in ((rough, 0.56, 0.60), (smooth, 0.75, 0.95)):
        for axis in (1, 2):
            agree = templates == np.roll(templates, 1, axis)
            assert low < agree.mean() < high
            assert low - 0.03 < agree.take(0, axis).mean() < high + 0.03
    assert smooth.sum() == rough.sum()
    assert len(np.unique(smooth, axis=0)) == 200


def test_episodes_are_a_pure_function_of_seed_split_and_index() -> None:
    task = make(seed=3)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    episode = task.episode(7, tasks=5, shots=4, queries=2)
    task.episode(8, tasks=1, shots=1, queries=1)
    again = make(seed=3).episode(7, tasks=5, shots=4, queries=2)
    assert torch.equal(state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # type: ignore[index]
    assert episode.support.shape == (4, 5, 1, 8, 8)
    assert episode.query.shape == (2, 5, 1, 8, 8)
    assert episode.query.dtype == torch.uint8
    for name in ("support", "query", "class_ids", "group_ids", "support_ids", "query_ids"):
        assert torch.equal(getattr(episode, name), getattr(again, name)), name
    for other in (make(seed=4), make(seed=3, split="test"), make(seed=3, split="train+test")):
        assert not torch.equal(other.episode(7, 5, 4, 2).query, episode.query)
    assert not torch.equal(task.episode(8, 5, 4, 2).query, episode.query)


def test_queries_do_not_depend_on_shots_supports_are_nested_and_tasks_stay() -> None:
    task = make()
    full = task.episode(1, tasks=6, shots=5, queries=3)
    assert full.support_ids is not None
    assert full.class_ids is not None
    for shots, tasks in ((0, 6), (2, 6), (5, 1), (3, 4)):
        part = task.episode(1, tasks=tasks, shots=shots, queries=3)
        assert torch.equal(part.query, full.query[:, :tasks])
        assert torch.equal(part.support, full.support[:shots, :tasks])
        assert part.support_ids is not None
        assert torch.equal(part.support_ids, full.support_ids[:shots, :tasks])
        assert part.class_ids is not None
        assert torch.equal(part.class_ids, full.class_ids[:tasks])


def test_ids_tell_images_apart_and_classes_are_uniform() -> None:
    task = make()
    episode = task.episode(0, tasks=20_000, shots=2, queries=1)
    assert episode.class_ids is not None
    assert episode.query_ids is not None
    assert episode.support_ids is not None
    assert len(torch.cat([episode.query_ids, episode.support_ids]).unique()) == 60_000
    counts = np.bincount(episode.class_ids.numpy(), minlength=64)
    assert goodness_of_fit(counts, np.full(64, 20_000 / 64)) > FALSE_ALARM


def test_splits_share_the_templates() -> None:
    parts = [make(split=split) for split in (*SPLITS, "train+validation")]
    assert len({part.fingerprint for part in parts}) == 1
    assert make(seed=1).fingerprint == parts[0].fingerprint
    for options in ({"flip": 0.06}, {"template_seed": 1}, {"classes": 63}, {"shifts": 1}, {"smooth": 1.0}):
        assert make(**options).fingerprint != parts[0].fingerprint
    assert make(split="validation+train").split == "train+validation"
    assert (make(classes=10).templates == parts[0].templates[:10]).all()


def test_it_is_what_it_says() -> None:
    task = make(split="validation")
    assert isinstance(task, TaskDistribution)
    assert (task.name, task.split, task.event_shape, task.levels) == ("templates", "validation", (1, 8, 8), 2)
    assert (task.classes, task.variants, len(task.class_names), len(task.group_names)) == (64, 9, 64, 64)
    assert task.class_group.tolist() == list(range(64))
    assert json.loads(json.dumps(task.recipe)) == task.recipe
    assert len(np.unique(task.templates, axis=0)) == 64
    assert (task.templates.sum(axis=(1, 2)) == 19).all()  # 0.3 of 64
    assert repr(task) == "TemplateTasks(name='templates', split='validation', seed=0, event_shape=(1, 8, 8), levels=2)"


def test_other_tasks_do_not_know_their_optimum() -> None:
    task = TASKS["digits"](split="test")
    assert task.optimum(task.episode(0, tasks=1, shots=1, queries=1)) is None
    assert isinstance(make().optimum(make().episode(0, 1, 1, 1)), Density)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 0.0}, r"flip=0.0; give the chance of a pixel to be flipped, above 0 and at most 0.5"),
        ({"flip": 0.51}, r"flip=0.51"),
        ({"flip": math.nan}, r"flip=nan"),
        ({"ink": 0.0}, r"ink=0.0; give the part of a template that is ink, strictly between 0 and 1"),
        ({"ink": 1.0}, r"ink=1.0"),
        ({"variety": 1.1}, r"variety=1.1; .* from 0 to 1"),
        ({"shifts": 4}, r"shifts=4 with size=8; give the square of an odd number, such as 1, 9 or 25"),
        ({"shifts": 8}, r"shifts=8"),
        ({"shifts": 9, "size": 2}, r"shifts=9 with size=2"),
        ({"smooth": -1.0}, r"smooth=-1.0; give the width of a blur in pixels, 0 for none"),
        ({"smooth": math.inf}, r"smooth=inf"),
        ({"size": 1}, r"size=1; give at least 2"),
        ({"classes": 0}, r"classes=0; give at least 1"),
        ({"seed": -1}, r"seed=-1; give an integer from 0"),
        ({"template_seed": -1}, r"template_seed=-1; give an integer from 0"),
        ({"split": "dev"}, r"split='dev' is not a split of templates"),
    ],
    ids=str,
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_bad_calls_are_named() -> None:
    task = make()
    counts_are_refused(lambda split: task)
    with pytest.raises(TypeError, match=r"index=0.5 is a float"):
        task.episode(0.5, 1, 1, 1)  # type: ignore[arg-type]
    other = make(size=9).episode(0, 2, 3, 1)
    with pytest.raises(ValueError, match=r"support has shape \(3, 2, 1, 9, 9\); templates takes .*1, 8, 8"):
        task.optimum(other)
    grey = task.episode(0, 1, 1, 1)
    with pytest.raises(ValueError, match=r"support holds pixels from 0 to 2; templates has 0 and 1"):
        task.optimum(Episode(grey.support * 2, grey.query))
    with pytest.raises(ValueError, match=r"value has shape"):
        task.optimum(grey).log_prob(other.query)
