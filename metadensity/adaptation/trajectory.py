"""What happens in the inner loop, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from metadensity.adaptation.adapted_density import adapted_density
from metadensity.adaptation.adaptive_model import AdaptiveModel
from metadensity.adaptation.functional import ParameterDict
from metadensity.adaptation.inner_loop import InnerLoop, Loss, adaptation_trajectory
from metadensity.adaptation.losses import nats_per_dim, support_nll
from metadensity.episode import Episode
from metadensity.model import FewShotModel


@dataclass(frozen=True)
class InnerStep:
    """The state of the inner loop after ``step`` steps (0: the start), as means over the tasks; plain floats.

    support_nll: of each support image given the others, query_nll: of the queries given the support, in nats/dim.
    gradient_norm: of the gradient of the inner loss that this step followed, over all parameters that adapt;
    update_norm: how far it went, as a Euclidean distance; step_size: the mean of its step sizes. Gradient and distance
    are 0 at step 0. overshoot: the share of tasks whose support NLL this step raised.
    """

    step: int
    support_nll: float
    query_nll: float
    gradient_norm: float
    update_norm: float
    step_size: float
    overshoot: float


@torch.no_grad()
def inner_steps(
    model: FewShotModel,
    episode: Episode,
    loop: InnerLoop | None = None,
    loss: Loss = support_nll,
    step_sizes: Mapping[str, Tensor] | None = None,
) -> list[InnerStep]:
    """How the inner loop goes on the tasks of ``episode``: one entry at the start and one after each step.

    model: an AdaptiveModel, whose own loop, loss and step sizes are shown (``loop`` replaces its loop, for example to
    take more steps than it was trained with); or any few-shot model, with those given here as in ``adapt``.
    Raises ValueError for an episode without tasks, supports or queries.
    """
    if not (episode.shots and episode.queries and episode.tasks):
        raise ValueError(
            f"The episode has {episode.tasks} tasks of {episode.shots} shots and {episode.queries} queries; the inner "
            "loop is shown on at least one of each."
        )
    if episode.support_lengths is not None or episode.query_lengths is not None:
        raise ValueError("The episode has lengths; the inner loop reads images of one size. Cut windows of it.")
    if isinstance(model, AdaptiveModel):
        loop = model.loop if loop is None else loop
        loss, step_sizes, model = model.inner_loss, model.step_sizes(), model.base
    loop = InnerLoop() if loop is None else loop
    model.check_support(episode.support)
    path = adaptation_trajectory(model, episode.support, loop, loss, step_sizes)
    seen: list[InnerStep] = []
    previous: Tensor | None = None
    for step, own in enumerate(path):
        support = _support_nll(model, own, episode.support, loop)
        density = adapted_density(model, own, episode.support, loop)
        query = nats_per_dim(density, episode.query).mean()
        update_norm = gradient = 0.0
        size = _mean_size(own, step_sizes, loop)
        if step:
            update_norm = _norm(own, path[step - 1])
            gradient = _norm(own, path[step - 1], step_sizes or {}, loop.step_size)
        worse = 0.0 if previous is None else float((support > previous).double().mean())
        seen.append(InnerStep(step, float(support.mean()), float(query), gradient, update_norm, size, worse))
        previous = support
    return seen


def inner_metrics(steps: Sequence[InnerStep], prefix: str = "inner") -> dict[str, float]:
    """The same as plain floats for a metrics file: ``inner/query_nll/step_1`` and so on."""
    return {
        f"{prefix}/{name}/step_{step.step}": value
        for step in steps
        for name, value in asdict(step).items()
        if name != "step"
    }


def _support_nll(model: FewShotModel, own: ParameterDict, support: Tensor, loop: InnerLoop) -> Tensor:
    """Mean NLL ``(tasks,)`` of each support image given the others, in nats/dim, under each task's parameters."""
    each = []
    for one in range(len(support)):
        others = torch.cat([support[:one], support[one + 1 :]])
        each.append(nats_per_dim(adapted_density(model, own, others, loop), support[one]))
    return torch.stack(each).mean(0)


def _norm(
    after: ParameterDict, before: ParameterDict, sizes: Mapping[str, Tensor] | None = None, size: float = 1.0
) -> float:
    """Mean over tasks of the norm of a step, divided by its step sizes where they are given."""
    total: Tensor | float = 0.0
    for name, tensor in after.items():
        rate = size if sizes is None else sizes.get(name, size)
        total = total + ((before[name] - tensor) / rate).double().reshape(len(tensor), -1).square().sum(1)
    assert isinstance(total, Tensor)
    return float(total.sqrt().mean())


def _mean_size(own: ParameterDict, sizes: Mapping[str, Tensor] | None, loop: InnerLoop) -> float:
    if not sizes:
        return float(loop.step_size)
    rates = torch.cat([sizes[name].flatten() for name in own])
    return float(rates.double().mean())
