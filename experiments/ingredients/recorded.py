"""Configurations of earlier versions, read as this one would have recorded them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.ingredients.model import MODEL_OPTIONS, OF_EVERY_MODEL
from experiments.ingredients.task import OF_EVERY_TASK, TASK_OPTIONS
from experiments.ingredients.training import TRAINING_DEFAULTS
from experiments.recording.flat_configs import current_names


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration without what its model and task do not take, and with the defaults of what it lacks.

    Two that lead to the same training are equal, whatever versions recorded them. Parts that are no part of it, or
    whose name this version does not know, stay as they are.
    """
    config = current_names(config)
    whole = dict(config)
    for part, options, earlier in (("model", MODEL_OPTIONS, OF_EVERY_MODEL), ("task", TASK_OPTIONS, OF_EVERY_TASK)):
        if isinstance(config.get(part), Mapping) and "name" in config[part] and options.knows(config[part]["name"]):
            whole[part] = options.read(config[part], earlier)
    if isinstance(config.get("training"), Mapping):
        whole["training"] = {**TRAINING_DEFAULTS, **config["training"]}
    return whole
