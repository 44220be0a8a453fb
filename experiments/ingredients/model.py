"""The model of an experiment: its settings are ``name`` and the options of that model, at the model's own defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sacred import Ingredient

from experiments.recording.registered import RegisteredOptions
from metadensity.models import MODELS, FewShotModel

# What earlier versions recorded for every model, whether it took it or not.
OF_EVERY_MODEL = frozenset(
    {"layers", "planes", "penultimate", "kernel_size", "first_kernel", "context", "prototypes", "attention"}
    | {"patch_stride", "likelihood", "components"}
)


def find_model(name: str) -> type[FewShotModel]:
    """The class of a model in ``metadensity.models.MODELS``. Raises ValueError for a name that is not there."""
    if name not in MODELS:
        raise ValueError(f"model.name={name!r}; choose one of {', '.join(MODELS)}.")
    return MODELS[name]


MODEL_OPTIONS = RegisteredOptions("model", find_model, "attention", ("event_shape", "levels"))
# A run records its sources itself. Sacred would look for this file in the whole stack, for a tenth of a second.
model = Ingredient("model", _caller_globals=globals(), save_git_info=False)
model.configurations.append(MODEL_OPTIONS)


def build_model(config: Mapping[str, Any], event_shape: Sequence[int], levels: int, seed: int) -> FewShotModel:
    """An untrained model with initial weights drawn from ``seed``. config: the ingredient's values, or recorded ones.

    Raises ValueError for a name that is not in ``metadensity.models.MODELS``, and for an option it does not take.
    """
    options = MODEL_OPTIONS.read(config, OF_EVERY_MODEL)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return find_model(options.pop("name"))(event_shape=event_shape, levels=levels, **options)
