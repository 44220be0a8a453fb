"""Baselines that an evaluation fits."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.ingredients import baselines
from experiments.ingredients.baselines import fit_baseline
from metadensity.training import TrainingConfig
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
