"""Adaptation: one functional inner loop on torch.func, for every few-shot model."""

from metadensity.adaptation.adapt import adapt
from metadensity.adaptation.adapted_density import (
    AdaptedDensity,
    AdaptedFactorisedDensity,
    AdaptedPixelCNNDensity,
    adapted_density,
)
from metadensity.adaptation.adaptive_model import AdaptiveModel, layer_pattern
from metadensity.adaptation.inner_loop import InnerLoop, adaptation_trajectory, adapted_parameters
from metadensity.adaptation.losses import LearnedLoss, support_nll
from metadensity.adaptation.trajectory import InnerStep, inner_metrics, inner_steps

__all__ = [
    "AdaptedDensity",
    "AdaptedFactorisedDensity",
    "AdaptedPixelCNNDensity",
    "AdaptiveModel",
    "InnerLoop",
    "InnerStep",
    "LearnedLoss",
    "adapt",
    "adaptation_trajectory",
    "adapted_density",
    "adapted_parameters",
    "inner_metrics",
    "inner_steps",
    "layer_pattern",
    "support_nll",
]
