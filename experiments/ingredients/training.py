"""The outer loop of an experiment."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sacred import Ingredient
from sacred.config import ConfigDict

from experiments.recording.docstrings import explanations
from experiments.recording.settings import Setting, signature_settings
from metadensity.training import TrainingConfig

# One seed rules an experiment: the experiment's own.
TRAINING_DEFAULTS = {name: value for name, value in asdict(TrainingConfig()).items() if name != "seed"}


class _TrainingOptions(ConfigDict):
    """Sacred's scope of the defaults, which also says of what kind each setting is, and what it is for."""

    def settings(self, _: Mapping[str, Any]) -> dict[str, Setting]:
        own = [each for name, each in inspect.signature(TrainingConfig).parameters.items() if name in TRAINING_DEFAULTS]
        return signature_settings(own, explanations(TrainingConfig, TRAINING_DEFAULTS.keys()))


# A run records its sources itself. Sacred would look for this file in the whole stack, for a tenth of a second.
training = Ingredient("training", _caller_globals=globals(), save_git_info=False)
training.configurations.append(_TrainingOptions(TRAINING_DEFAULTS))


def training_config(config: Mapping[str, Any], seed: int) -> TrainingConfig:
    """The ingredient's values as the library's configuration. Raises ValueError for values out of range."""
    return TrainingConfig(**{**config, "shots": tuple(config["shots"]), "seed": seed})
