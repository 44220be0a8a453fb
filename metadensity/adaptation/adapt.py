"""Adapting any few-shot model to the supports of a batch of tasks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from metadensity.adaptation.adapted_density import adapted_density
from metadensity.adaptation.inner_loop import InnerLoop, Loss, adapted_parameters
from metadensity.adaptation.losses import support_nll
from metadensity.density import Density
from metadensity.model import FewShotModel


def adapt(
    model: FewShotModel,
    support: Tensor,
    loop: InnerLoop | None = None,
    loss: Loss = support_nll,
    step_sizes: Mapping[str, Tensor] | None = None,
) -> Density:
    """The density of each task with the model's parameters moved down the inner loss on its support.

    model: any few-shot model; one that reads its support still does. support: ``(S, tasks, C, *space)``, integers in
    [0, levels). With no supports there is no step: this is ``model(support)``. See ``adapted_parameters`` for the rest.

    Raises as ``model(support)`` does, and ValueError where ``loop.adapts`` matches no parameter.
    """
    loop = InnerLoop() if loop is None else loop
    model.check_support(support)
    if not support.numel() or not loop.steps:
        return model.condition(support)
    parameters = adapted_parameters(model, support, loop, loss, step_sizes)
    return adapted_density(model, parameters, support, loop)
