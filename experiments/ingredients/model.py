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
    name = "attention"  # one of metadensity.models.MODELS
    layers = 12
    planes = 24
    penultimate = 32
    kernel_size = 3
    first_kernel = None
    context = None
    prototypes = 0
    attention = "additive"
    patch_stride = 4
    likelihood = "categorical"
    components = 10
    if name == "aligned":
        map_features = 24
        map_every = 3
    if name == "multiscale":
        base = 8
        upscaler_layers = 18
    if name == "ensemble":
        members = 2
    if name in ("meta", "maml", "attention_meta"):  # the inner loop
        steps = 1
        step_size = 0.1
        first_order = False
        rematerialise = False
    if name in ("meta", "attention_meta"):
        feature_layer = None
    if name == "attention_meta":
        inner = "learned"
        adapts = None  # pattern of the names of parameters that adapt; None: the model's default
    if name == "maml":
        adapts = ""
        reptile = False
        learn_step_sizes = False


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
