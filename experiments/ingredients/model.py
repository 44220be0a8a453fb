"""The model of an experiment."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sacred import Ingredient

from metadensity.models import MODELS, FewShotModel

model = Ingredient("model")


@model.config
def _defaults() -> None:
    name = "attention"  # noqa: F841  one of metadensity.models.MODELS
    layers = 12  # noqa: F841
    planes = 24  # noqa: F841
    penultimate = 32  # noqa: F841
    kernel_size = 3  # noqa: F841
    context = None  # noqa: F841  size of f(s); None: twice the planes
    attention = "additive"  # noqa: F841  as published, or "dot"


def build_model(config: Mapping[str, Any], event_shape: Sequence[int], levels: int, seed: int) -> FewShotModel:
    """An untrained model with initial weights drawn from ``seed``; options it does not take are left out.

    Raises ValueError for a name that is not in ``metadensity.models.MODELS``.
    """
    if config["name"] not in MODELS:
        raise ValueError(f"model.name={config['name']!r}; choose one of {', '.join(MODELS)}.")
    kind = MODELS[config["name"]]
    known = inspect.signature(kind).parameters
    options = {key: value for key, value in config.items() if key in known}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(event_shape=event_shape, levels=levels, **options)
