"""Which evaluations may be compared: the same units and the same test pixels."""

from __future__ import annotations

from typing import Any

from experiments.recording.flat_configs import current_names
from experiments.recording.trained_model import TrainedModel
from tasks import TaskDistribution

UNITS = "nats/image"
PLACES = ("folder", "splits", "damaged")  # what lies there is compared by its fingerprints: see ingredients.task


def origin(run: TrainedModel) -> dict[str, Any]:
    """Where a model comes from: its run, and of the run's configuration what decides the weights."""
    config = run.config()
    kept = {key: config[key] for key in ("task", "model", "training", "seed") if key in config}
    return {"run": str(run.path), "config": kept}


def require_same_pixels(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Raise ValueError where two runs were trained on different tasks or pixels: their numbers do not compare."""
    one, other = current_names(one), current_names(other)
    ignored = {*TaskDistribution.training_only, *PLACES}
    differ = {key for key in one["task"] if key not in ignored and one["task"][key] != other["task"].get(key)}
    if differ:
        detail = ", ".join(f"{key}: {one['task'][key]!r} and {other['task'].get(key)!r}" for key in sorted(differ))
        raise ValueError(
            f"These runs model different pixels ({detail}), so their likelihoods cannot be compared. "
            "Compare runs with the same task settings."
        )
