"""Baselines that an evaluation fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.ingredients import baselines
from experiments.ingredients.baselines import BASELINES, baseline_model, baselines_of, fit_baseline
from metadensity.training import TrainingConfig
from tasks import TASKS, ImageTasks
from tests.tasks.conftest import make


@pytest.mark.parametrize(
    ("sizes", "fitted"),
    [
        ([5, 9], ((0, 1, 2, 4), 1)),
        ([4, 9], ((0, 1, 2), 2)),
        ([1, 9], ((0,), 1)),
        ([20], ((0, 1, 2, 4), 4)),
    ],
)
def test_training_classes_may_be_smaller_than_those_scored(
    sizes: list[int], fitted: tuple[tuple[int, ...], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        baselines, "TrainingConfig", lambda **options: seen.append(options) or TrainingConfig(**options)
    )
    fit_baseline("support_mean", make(sizes), (0, 1, 2, 4), steps=2)
    assert [(options["shots"], options["queries"]) for options in seen] == [fitted]


def sequences(**more: Any) -> ImageTasks:
    images = np.random.default_rng(0).integers(0, 4, (6, 1, 5), dtype=np.uint8)
    images[:, :, 3:] = 3
    arguments: dict[str, Any] = {"labels": [0] * 6, "class_names": ["a"], "group_names": ["a"], "class_group": [0]}
    arguments |= {"images": images, "levels": 4, "event_shape": (1, 5), "recipe": {}, **more}
    return ImageTasks("made", "train", 0, **arguments)


def test_sequences_have_baselines_of_their_own() -> None:
    """Counts, or a histogram and linear prediction of sound; and where supports have lengths, only what reads them."""
    assert baselines_of(make([5, 9])) == BASELINES
    assert baselines_of(TASKS["chains"]()) == (*BASELINES, "ngram")
    assert baselines_of(sequences()) == (*BASELINES, "ngram")
    sound = {"recipe": {"encoding": "mu-law-256"}}
    assert baselines_of(sequences(**sound)) == (*BASELINES, "histogram", "linear_prediction")
    assert baselines_of(sequences(**sound, lengths=[3] * 6)) == ("histogram", "linear_prediction")
    images = np.array([[[0, 3, 3]]], dtype=np.uint8).repeat(6, 0)
    ended = sequences(images=images, event_shape=(1, 3), end=3)
    assert baselines_of(ended) == (*BASELINES, "ngram")
    assert baseline_model("ngram", ended) == {"name": "ngram", "end": True}
    assert baseline_model("ngram", sequences()) == {"name": "ngram"}
    assert baseline_model("support_mean", ended) == {"name": "support_mean"}
    whole = sequences(lengths=[3] * 6)
    episode = whole.episode(0, 1, 1, 1)
    for name in ("histogram", "linear_prediction"):
        fitted = fit_baseline(name, whole, (0, 1), steps=2)
        assert fitted.loss(episode.support, episode.query, None, episode.support_lengths, episode.query_lengths) > 0
