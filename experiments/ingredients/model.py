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
    first_kernel = None  # of the first layer; None: kernel_size
    context = None  # size of f(s); None: twice the planes
    prototypes = 0  # learned images that pasts and supports are compared with
    attention = "additive"  # as published, or "dot"
    patch_stride = 4  # places between patches of the support: 4, as published, 2 or 1
    likelihood = "categorical"  # or "logistic", the mixture of PixelCNN++
    components = 10  # of that mixture
    if name == "aligned":
        map_features = 24  # of the map of the support
        map_every = 3  # layers from one that it reaches to the next
    if name == "multiscale":
        base = 8  # longest side of the smallest image
        upscaler_layers = 18  # of each doubling
    if name == "ensemble":
        members = 2
    if name in ("meta", "maml", "attention_meta"):  # the inner loop
        steps = 1
        step_size = 0.1
        first_order = False
        rematerialise = False  # less memory, more time
    if name in ("meta", "attention_meta"):
        feature_layer = None  # whose features the learned loss sees; None: the middle layer
    if name == "attention_meta":
        inner = "learned"  # or "support", the support's NLL
        adapts = None  # pattern of the names of parameters that adapt; None: the model's default
    if name == "maml":
        adapts = ""  # pattern of the names of parameters that adapt; "": all
        reptile = False
        learn_step_sizes = False  # one a parameter: Meta-SGD


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
