"""Adaptation: one functional inner loop on torch.func, for every few-shot model."""

from metadensity.adaptation.adapt import adapt
from metadensity.adaptation.density import AdaptedAutoregressiveDensity, AdaptedDensity, adapted_density
from metadensity.adaptation.diagnostics import InnerStep, inner_metrics, inner_steps
from metadensity.adaptation.inner import InnerLoop, adapted_parameters, parameter_path
from metadensity.adaptation.losses import LearnedLoss, support_nll
from metadensity.adaptation.model import AdaptiveModel, layer_pattern

__all__ = [
    "AdaptedAutoregressiveDensity",
    "AdaptedDensity",
    "AdaptiveModel",
    "InnerLoop",
    "InnerStep",
    "LearnedLoss",
    "adapt",
    "adapted_density",
    "adapted_parameters",
    "inner_metrics",
    "inner_steps",
    "layer_pattern",
    "parameter_path",
    "support_nll",
]
