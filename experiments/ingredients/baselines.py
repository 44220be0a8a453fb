"""Baselines without a network, meta-trained in seconds on the training split."""

from __future__ import annotations

from typing import Any

from experiments.ingredients import NAMED_CONFIGS, build_model
from metadensity import FewShotModel
from metadensity.episode import EpisodeSource
from metadensity.training import MetaTrainer, TrainingConfig
from tasks import ImageTasks, TaskDistribution

BASELINES = ("independent", "support_mean", "support_mixture")
COUNTING = {"histogram", "linear_prediction", "ngram"}
"""Those of sequences, which look at the training data before they learn their few numbers."""
_COUNTING_TRAINING = {"steps": 60, "tasks": 8, "queries": 2}


def baselines_of(task: TaskDistribution) -> tuple[str, ...]:
    """Which baselines there are for a task: of sequences those without an order of their own are not enough.

    For sound, which is known by its encoding, the histogram of the support, which knows its offset and no more, and
    linear prediction; for other sequences counts of n-grams. Where supports have lengths, only what reads them.
    """
    if len(task.event_shape) != 2:
        return BASELINES
    own = ("histogram", "linear_prediction") if "encoding" in task.recipe else ("ngram",)
    whole = isinstance(task, ImageTasks) and task.support_lengths([0]) is not None
    return own if whole else (*BASELINES, *own)


def baseline_model(name: str, task: EpisodeSource) -> dict[str, Any]:
    """The settings of a baseline's model: its name, and whether the last level of the task ends a string."""
    ended = getattr(task, "end", None) == task.levels - 1
    return {"name": name, "end": True} if name == "ngram" and ended else {"name": name}


def baseline_training(name: str) -> dict[str, Any]:
    """The settings of its training: the named configuration "baseline", of which counting takes less."""
    return {**NAMED_CONFIGS["baseline"]["training"], **(_COUNTING_TRAINING if name in COUNTING else {})}


def fit_baseline(
    name: str, train: EpisodeSource, shots: tuple[int, ...], seed: int = 0, progress: bool = False, **settings: Any
) -> FewShotModel:
    """Fit a baseline of ``baselines_of`` on episodes of ``train``, with the settings of ``baseline_training``.

    Fewer supports and queries are taken where the smallest class has too few images for as many as ``shots`` asks: a
    class to train on may have fewer than those that are scored.
    """
    model = build_model(baseline_model(name, train), train.event_shape, train.levels, seed)
    config = {**baseline_training(name), "shots": shots, "seed": seed, **settings}
    sizes = getattr(train, "class_size", None)  # tasks that draw without end have none
    if sizes is not None:
        smallest = int(min(sizes))
        config["shots"] = tuple(count for count in shots if count < smallest) or (0,)
        config["queries"] = max(1, min(config["queries"], smallest - max(config["shots"])))
    return MetaTrainer(model, train, None, TrainingConfig(**config)).run(progress=f"fitting {name}" if progress else "")
