"""Settings of the outer loop: what the learning rate is, and what is refused."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from metadensity.training import TrainingConfig


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    config = TrainingConfig(steps=100, warmup=10, learning_rate=0.5)
    assert [config.learning_rate_at(step) for step in range(10)] == pytest.approx(
        [0.05 * (step + 1) for step in range(10)]
    )
    assert config.learning_rate_at(10) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("decay", "values"),
    [
        ("cosine", {20: 0.4 * (1 + math.cos(math.pi / 4)) / 2, 30: 0.2, 40: 0.4 * (1 - math.cos(math.pi / 4)) / 2}),
        ("linear", {20: 0.3, 30: 0.2, 40: 0.1, 49: 0.01}),
        ("none", {20: 0.4, 30: 0.4, 49: 0.4}),
    ],
)
def test_decay(decay: str, values: dict[int, float]) -> None:
    config = TrainingConfig(steps=50, warmup=10, learning_rate=0.4, decay=decay)
    assert {step: config.learning_rate_at(step) for step in values} == pytest.approx(values)
    assert all(config.learning_rate_at(step) > 0 for step in range(50))


def test_no_warm_up_and_nothing_but_warm_up() -> None:
    assert TrainingConfig(steps=10, warmup=0, learning_rate=0.4).learning_rate_at(0) == 0.4
    assert TrainingConfig(steps=10, warmup=20, learning_rate=0.4).learning_rate_at(9) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"optimizer": "sgd"}, "optimizer='sgd'; choose one of 'adamw', 'rmsprop', 'muon'"),
        ({"decay": "step"}, "decay='step'; choose one of 'cosine', 'linear', 'none'"),
        ({"precision": "float16"}, "precision='float16'; choose one of 'float32', 'bfloat16'"),
        ({"shots": ()}, "shots=(); name at least one number of supports, each 0 or more"),
        ({"shots": (1, -1)}, "shots=(1, -1); name at least one number of supports, each 0 or more"),
        ({"shots": (1, 2.5)}, "shots=(1, 2.5); name at least one number of supports, each 0 or more"),
        ({"average": 1.0}, "average=1.0; the decay of the weight average must lie in [0, 1)"),
        ({"average": -0.1}, "average=-0.1; the decay of the weight average must lie in [0, 1)"),
        ({"withheld": 1.0}, "withheld=1.0; the part of tasks without supports must lie in [0, 1)"),
        ({"withheld": -0.5}, "withheld=-0.5; the part of tasks without supports must lie in [0, 1)"),
        ({"learning_rate": 0.0}, "learning_rate=0.0; it must be a positive number"),
        ({"learning_rate": math.nan}, "learning_rate=nan; it must be a positive number"),
        ({"learning_rate": math.inf}, "learning_rate=inf; it must be a positive number"),
        ({"warmup": -1}, "warmup=-1; it must be 0 or more"),
        ({"clip": -1.0}, "clip=-1.0; it must be 0 or more"),
        ({"weight_decay": -1e-4}, "weight_decay=-0.0001; it must be 0 or more"),
        ({"seed": -1}, "seed=-1; it must be 0 or more"),
        ({"shots": 1}, "shots=1; name at least one number of supports, each 0 or more, such as (1,)"),
        (
            {"graphs": True, "device": "cuda", "optimizer": "muon"},
            "graphs=True with optimizer='muon', which is not rec",
        ),
        ({"graphs": True}, "graphs=True with device='cpu'; only CUDA devices record them. Leave it False"),
    ],
    ids=str,
)
def test_settings_that_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        TrainingConfig(**settings)


@pytest.mark.parametrize(
    "name", ["steps", "tasks", "queries", "log_every", "validate_every", "validation_tasks", "checkpoint_every"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_counts_that_are_refused(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=re.escape(f"{name}={value}; it must be a whole number of at least 1")):
        TrainingConfig(**settings)
