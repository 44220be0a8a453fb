"""Baselines without a network, meta-trained in seconds on the training split."""

from __future__ import annotations

from typing import Any

from experiments.ingredients import NAMED_CONFIGS, build_model
from metadensity import FewShotModel
from metadensity.episode import EpisodeSource
from metadensity.training import MetaTrainer, TrainingConfig

BASELINES = ("independent", "support_mean", "support_mixture")


def fit_baseline(
    name: str, train: EpisodeSource, shots: tuple[int, ...], seed: int = 0, progress: bool = False, **settings: Any
) -> FewShotModel:
    """Fit one of ``BASELINES`` on episodes of ``train`` with the settings of the named configuration "baseline".

    Fewer supports and queries are taken where the smallest class has too few images for as many as ``shots`` asks: a
    class to train on may have fewer than those that are scored.
    """
    model = build_model({"name": name}, train.event_shape, train.levels, seed)
    config = {**NAMED_CONFIGS["baseline"]["training"], "shots": shots, "seed": seed, **settings}
    sizes = getattr(train, "class_size", None)  # tasks that draw without end have none
    if sizes is not None:
        smallest = int(min(sizes))
        config["shots"] = tuple(count for count in shots if count < smallest) or (0,)
        config["queries"] = max(1, min(config["queries"], smallest - max(config["shots"])))
    return MetaTrainer(model, train, None, TrainingConfig(**config)).run(progress=f"fitting {name}" if progress else "")
