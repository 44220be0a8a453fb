"""The inner loop: steps down an inner loss from shared parameters to those of each task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from metadensity.adaptation.checkpointing import rematerialised
from metadensity.adaptation.functional import FunctionalPair, ParameterDict, adapting_names, map_tasks
from metadensity.adaptation.losses import support_nll
from metadensity.adaptation.second_order import require_second_derivatives
from metadensity.model import FewShotModel

Loss = Callable[[FewShotModel, Tensor], Tensor]
WAYS = ("auto", "loop", "vmap")

# Numbers in an average parameter, times places of an image, times supports. Below it a task's operations are so small
# that running them one by one costs more than computing them; `python -m experiments.bench adaptation` measures both.
SMALL_TASK = 200_000


@dataclass(frozen=True)
class InnerLoop:
    """How parameters adapt: ``steps`` times theta <- theta - step_size * gradient of the inner loss.

    steps: 0 leaves the parameters as they are. step_size: used where no learned step sizes are given.
    first_order: take the gradient as a constant in the meta-gradient (FOMAML): half the time, and a learned inner loss
        then gets no gradient.
    adapts: a regular expression; parameters in whose name it is found adapt ("": all). The rest is shared by tasks.
    way: "loop" over tasks, "vmap" over them, or "auto", the faster one by the size of a task. The results agree.
    chunk: tasks at once; None: all of them under vmap, one under "loop". Without gradients this bounds the memory; with
        them, together with ``rematerialise``.
    rematerialise: keep no graph of the inner loop and the likelihood; each step of each chunk is run again when the
        gradient is wanted. Takes longer, and the memory of one step of one chunk.
    """

    steps: int = 1
    step_size: float = 0.1
    first_order: bool = False
    adapts: str = ""
    way: str = "auto"
    chunk: int | None = None
    rematerialise: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Integral) or self.steps < 0:
            raise ValueError(f"steps={self.steps!r}; the inner loop takes a whole number of steps, 0 or more.")
        if not 0 < self.step_size < float("inf"):
            raise ValueError(f"step_size={self.step_size!r}; it must be a positive number.")
        if self.way not in WAYS:
            raise ValueError(f"way={self.way!r}; choose one of {', '.join(map(repr, WAYS))}.")
        if self.chunk is not None and (not isinstance(self.chunk, Integral) or self.chunk < 1):
            raise ValueError(f"chunk={self.chunk!r}; it is a number of tasks at once, at least 1, or None for all.")

    def vectorised(self, model: FewShotModel, images: int) -> bool:
        """Whether tasks go through vmap, where one has this many images to compute on at a time."""
        if self.way != "auto":
            return self.way == "vmap"
        sizes = [parameter.numel() for parameter in model.parameters()]
        places = torch.Size(model.event_shape[1:]).numel()
        return sum(sizes) / max(1, len(sizes)) * places * images < SMALL_TASK

    def chunks(self, tasks: int, vectorised: bool) -> list[slice]:
        """The tasks in groups that are computed together."""
        size = self.chunk or (tasks if vectorised else 1)
        return [slice(start, min(start + size, tasks)) for start in range(0, tasks, size)]


def adapted_parameters(
    model: FewShotModel,
    support: Tensor,
    loop: InnerLoop,
    loss: Loss = support_nll,
    step_sizes: Mapping[str, Tensor] | None = None,
) -> ParameterDict:
    """Each task's own parameters after the inner loop: by name, ``(tasks, *shape)``, of those that adapt.

    support: ``(S, tasks, C, *space)`` with S and tasks at least 1. step_sizes: by parameter name, a tensor that can be
    broadcast to the parameter (Meta-SGD); None: ``loop.step_size``.

    Differentiable in the model's parameters, those of ``loss`` and the step sizes, through the steps themselves unless
    ``loop.first_order``. Gradients of the inner loss are taken whatever the grad mode around, and in the
    parameters' own precision under autocast. Raises ValueError where ``loop.adapts`` matches no parameter, RuntimeError
    where a step of second order goes through what has no second derivative.
    """
    return adaptation_trajectory(model, support, loop, loss, step_sizes, last=True)[-1]


def adaptation_trajectory(
    model: FewShotModel,
    support: Tensor,
    loop: InnerLoop,
    loss: Loss = support_nll,
    step_sizes: Mapping[str, Tensor] | None = None,
    last: bool = False,
) -> list[ParameterDict]:
    """As ``adapted_parameters``: the parameters before the first step and after each (last: after the last alone)."""
    names = adapting_names(model, loop.adapts)
    bound = FunctionalPair(model, loss)
    shared = bound.tensors()
    rates = {f"model.{name}": rate for name, rate in (step_sizes or {}).items()}
    start = {f"model.{name}": shared[f"model.{name}"] for name in names}
    by_task = support.transpose(0, 1)
    vectorised = loop.vectorised(model, len(support))

    def step(own: ParameterDict, part: ParameterDict, shared: ParameterDict, rates: ParameterDict) -> ParameterDict:
        """One step of every task in ``part``; own: where they are, empty at the start, which they share."""

        def one(support: Tensor, own: ParameterDict | None = None) -> ParameterDict:
            before = own or {name: shared[name] for name in start}
            return _step(bound, before, shared, rates, support.unsqueeze(1), loop)

        return map_tasks(one, vectorised, part["support"], *([own] if own else []))

    paths: list[list[ParameterDict]] = []
    for chunk in loop.chunks(support.shape[1], vectorised):
        part = by_task[chunk]
        path = [{name: tensor.expand(len(part), *tensor.shape) for name, tensor in start.items()}]
        own: ParameterDict = {}
        for _ in range(loop.steps):
            own = rematerialised(step, own, {"support": part}, shared, rates, keep=not loop.rematerialise)
            path = [own] if last else [*path, own]
        paths.append(path)
    return [_joined(parts) for parts in zip(*paths, strict=True)]


def _step(
    bound: FunctionalPair,
    own: ParameterDict,
    shared: ParameterDict,
    rates: ParameterDict,
    support: Tensor,
    loop: InnerLoop,
) -> ParameterDict:
    """One step of one task from its parameters ``own``."""

    def objective(own: ParameterDict) -> Any:
        result = bound.call({**shared, **own}, support)
        if not loop.first_order:
            require_second_derivatives(bound.model, result)
        return result

    constant = (
        torch.no_grad() if loop.first_order else contextlib.nullcontext()
    )  # func.grad heeds only no_grad inside it
    with constant, torch.autocast(support.device.type, enabled=False):  # the backward pass must not see autocast either
        gradients = torch.func.grad(objective)(own)
    return {name: tensor - rates.get(name, loop.step_size) * gradients[name] for name, tensor in own.items()}


def _joined(parts: Sequence[ParameterDict]) -> ParameterDict:
    """The chunks of one step together, under the model's own names."""
    return {name.removeprefix("model."): torch.cat([part[name] for part in parts]) for name in parts[0]}
