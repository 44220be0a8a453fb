"""The outer loop of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sacred import Ingredient

from metadensity.training import TrainingConfig

training = Ingredient("training")
# One seed rules an experiment: the experiment's own.
training.add_config({name: value for name, value in asdict(TrainingConfig()).items() if name != "seed"})


def training_config(config: Mapping[str, Any], seed: int) -> TrainingConfig:
    """The ingredient's values as the library's configuration. Raises ValueError for values out of range."""
    return TrainingConfig(**{**config, "shots": tuple(config["shots"]), "seed": seed})
