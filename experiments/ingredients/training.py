"""The outer loop of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sacred import Ingredient

from metadensity.training import TrainingConfig

# One seed rules an experiment: the experiment's own.
TRAINING_DEFAULTS = {name: value for name, value in asdict(TrainingConfig()).items() if name != "seed"}
training = Ingredient("training")
training.add_config(TRAINING_DEFAULTS)


def training_config(config: Mapping[str, Any], seed: int) -> TrainingConfig:
    """The ingredient's values as the library's configuration. Raises ValueError for values out of range."""
    return TrainingConfig(**{**config, "shots": tuple(config["shots"]), "seed": seed})
