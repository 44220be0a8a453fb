"""Optimisers of the outer loop, and how their state is set and restored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metadensity.model import FewShotModel
from metadensity.training.config import TrainingConfig
from metadensity.training.muon import Muon


def set_learning_rate(group: dict[str, Any], rate: float) -> None:
    """Set a learning rate, in place where it is a tensor, which recorded steps read."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def like_parameter(value: Tensor, parameter: Tensor) -> Tensor:
    """A moment of ``parameter``, in its memory format: fused kernels pair the two by their place in memory."""
    if not value.ndim:
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def build_optimizer(model: FewShotModel, config: TrainingConfig, device: torch.device) -> torch.optim.Optimizer:
    parameters, decay, graphs = list(model.parameters()), config.weight_decay, config.graphs
    rate: Any = torch.tensor(config.learning_rate, device=device) if graphs else config.learning_rate
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, alpha=0.99, weight_decay=decay, capturable=graphs)
    if config.optimizer == "muon":
        return Muon(model.named_parameters(), lr=rate, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=decay, fused=True, capturable=graphs)
