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
    layers = 12  # noqa: F841
    planes = 24  # noqa: F841
    penultimate = 32  # noqa: F841
    kernel_size = 3  # noqa: F841
    first_kernel = None  # noqa: F841  of the first layer; None: kernel_size
    context = None  # noqa: F841  size of f(s); None: twice the planes
    prototypes = 0  # noqa: F841  learned images that pasts and supports are compared with
    attention = "additive"  # noqa: F841  as published, or "dot"
    patch_stride = 4  # noqa: F841  places between patches of the support: 4, as published, 2 or 1
    likelihood = "categorical"  # noqa: F841  or "logistic", the mixture of PixelCNN++
    components = 10  # noqa: F841  of that mixture
    if name == "aligned":
        map_features = 24  # noqa: F841  of the map of the support
        map_every = 3  # noqa: F841  layers from one that it reaches to the next
    if name == "multiscale":
        base = 8  # noqa: F841  longest side of the smallest image
        upscaler_layers = 18  # noqa: F841  of each doubling
    if name == "ensemble":
        members = 2  # noqa: F841
    if name in ("meta", "maml", "attention_meta"):  # the inner loop
        steps = 1  # noqa: F841
        step_size = 0.1  # noqa: F841
        first_order = False  # noqa: F841
        rematerialise = False  # noqa: F841  less memory, more time
    if name in ("meta", "attention_meta"):
        feature_layer = None  # noqa: F841  whose features the learned loss sees; None: the middle layer
    if name == "attention_meta":
        inner = "learned"  # noqa: F841  or "support", the support's NLL
        adapts = None  # pattern of the names of parameters that adapt; None: the model's default
    if name == "maml":
        adapts = ""  # noqa: F841  pattern of the names of parameters that adapt; "": all
        reptile = False  # noqa: F841
        learn_step_sizes = False  # noqa: F841  one a parameter: Meta-SGD


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
