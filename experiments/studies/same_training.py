"""Whether two trainings lead to the same weights, by their configurations, and one hash for all that do."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from experiments import train
from experiments.ingredients import read_config
from experiments.recording.flat_configs import flatten, nested

KEPT = ("task", "model", "training", "seed", "initial")
ELSEWHERE = {  # changes no weights, but by rounding
    "task.data_root",
    *(f"training.{name}" for name in ("device", "graphs", "log_every", "checkpoint_every")),
}


@functools.cache
def _defaults() -> dict[str, Any]:
    """Of what earlier versions had no setting for; options of model and task have those of that model and task."""
    config = flatten(train.experiment.configuration((), {}))
    return {name: value for name, value in config.items() if not name.startswith(("model.", "task."))}


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the weights of a configuration, nested or flat, with the defaults of what it does not know."""
    whole = flatten(read_config(nested({**_defaults(), **flatten(config)})))
    return {
        name: value
        for name, value in sorted(whole.items())
        if name.partition(".")[0] in KEPT and name not in ELSEWHERE and value is not None
    }


def same_config(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configurations, nested or flat, lead to the same weights, wherever it is trained and kept.

    A setting that only one of them knows, as the other is of an earlier version, has its default there.
    """
    return deciding(one) == deciding(other)


def config_hash(config: Mapping[str, Any], **more: Any) -> str:
    """16 hex digits that are the same for configurations that lead to the same weights, and for what is given beside.

    Of two that validate and do not, the kept models differ.
    """
    known = {**deciding(config), **more, "validate": flatten(config).get("validate", True)}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
