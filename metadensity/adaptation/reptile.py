"""Reptile's meta-gradient, which is no gradient of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metadensity.adaptation.checkpointing import require_once


def reptile_parameters(start: Mapping[str, Tensor], adapted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``adapted`` as a surrogate: the same values, and a backward pass that gives Reptile's direction.

    start: the shared parameters by name (others are ignored). adapted: by name, ``(tasks, *shape)``, from the inner
    loop; its own graph is cut off.
    Whatever loss is made of the result, its gradient in the shared parameter is theta - theta', the mean over tasks
    (Nichol et al. 2018, "On First-Order Meta-Learning Algorithms", algorithm 1), so a trainer that minimises
    -log_prob of the queries takes Reptile steps without knowing. The loss's own gradient decides nothing but which
    parameters take part; its backward pass through the queries is thrown away. Call backward once for one result.
    """
    return {name: _Reptile.apply(start[name], tensor.detach()) for name, tensor in adapted.items()}


class _Reptile(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, start: Tensor, adapted: Tensor) -> Tensor:
        ctx.save_for_backward(start, adapted)
        return adapted.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        require_once("Reptile's direction is no gradient of the loss. Take a model with reptile=False.")
        start, adapted = ctx.saved_tensors
        return start - adapted.mean(0), None
