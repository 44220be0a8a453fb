"""LSTM cells over a map, a row or a diagonal at a time: in torch's operations, and by a native kernel.

Maps have features last, ``(places, batch, features)``, places in raster order. Cells stand in the order in which they
are computed, those of a step beside one another; see ``Sweep``. ``lstm_scan_plain`` is the definition and the oracle of
the kernel, and what is differentiated where a gradient of the gradient is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metadensity.native.calls import usable
from metadensity.native.lstm_scan import Call, library


@dataclass(frozen=True)
class Link:
    """Cells ``start`` to ``start + count`` read those from ``source`` on; the others of a step read the border."""

    start: int
    source: int
    count: int


@dataclass(frozen=True)
class Step:
    """Cells ``start`` to ``stop``, and what each tap of the state kernel reads of the step before."""

    start: int
    stop: int
    taps: tuple[Link, ...]


@dataclass(frozen=True)
class Sweep:
    """The order in which a map is gone through. carry: the tap that the memory of a cell comes from."""

    steps: tuple[Step, ...]
    carry: int

    @classmethod
    def of(cls, spans: Sequence[tuple[int, int]], taps: int, carry: int) -> Sweep:
        """Steps over lines of cells: step k has those on lines ``first`` to ``last``, for each of ``spans``.

        A cell on line n reads, by tap t, the cell on line ``n + t - carry`` of the step before; where there is none,
        the state beyond the border.
        """
        steps, start, before, at = list[Step](), 0, (0, 0), 0
        for first, last in spans:
            links = []
            for tap in range(taps):
                low, high = max(first, before[0] - tap + carry), min(last, before[1] - tap + carry)
                here, source = start + low - first, at + low + tap - carry - before[0]
                links.append(Link(here, source, high - low) if high > low else Link(start, 0, 0))
            steps.append(Step(start, start + last - first, tuple(links)))
            before, at, start = (first, last), start, start + last - first
        return cls(tuple(steps), carry)

    @cached_property
    def starts(self) -> Tensor:
        """The first cell of each step, and how many there are."""
        return torch.tensor([step.start for step in self.steps] + [self.steps[-1].stop])

    @cached_property
    def links(self) -> Tensor:
        """Start, source and count of what is read, ``(steps, taps, 3)``."""
        return torch.tensor([[(tap.start, tap.source, tap.count) for tap in step.taps] for step in self.steps])


def lstm_scan(
    x: Tensor,
    inputs: Tensor,
    bias: Tensor,
    weight: Tensor,
    hidden: Tensor,
    memory: Tensor,
    sweep: Sweep,
    order: Tensor,
    rank: Tensor,
) -> Tensor:
    """The states ``(directions, places, batch, planes)`` of LSTM cells that read one another as ``sweep`` says.

    c = f * c' + i * g and h = o * tanh(c), of o, f, i = sigmoid and g = tanh of what comes of inputs and of earlier
    states (van den Oord et al. 2016, "Pixel Recurrent Neural Networks", equation 3).

    x: ``(places, batch, features)``. inputs: ``(directions, 4 * planes, features)``, the gates in the order o, f, i, g.
    bias: ``(directions, batch, 4 * planes)``. weight: ``(directions, 4 * planes, taps * planes)``, tap after tap.
    hidden, memory: the state beyond the border, ``(directions, planes)``. order: of each direction the places of the
    cells, ``(directions, places)``; rank: the cells of the places.

    In the precision of the weights, whatever autocast says. In the native kernel where ``usable``, which may round
    otherwise; else as ``lstm_scan_plain``.
    """
    x, inputs, bias = (tensor.to(weight.dtype) for tensor in (x, inputs, bias))
    with torch.autocast(x.device.type, enabled=False):
        tensors = (x, inputs, bias, weight, hidden, memory)
        if not usable(tensors) or library() is None:
            return lstm_scan_plain(x, inputs, bias, weight, hidden, memory, sweep, order, rank)
        differentiable = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        states: Tensor = _Scan.apply(differentiable, sweep, order, rank, *tensors)
    return states


def lstm_scan_plain(
    x: Tensor,
    inputs: Tensor,
    bias: Tensor,
    weight: Tensor,
    hidden: Tensor,
    memory: Tensor,
    sweep: Sweep,
    order: Tensor,
    rank: Tensor,
) -> Tensor:
    """``lstm_scan`` a step after the other in torch's operations."""
    gates = torch.stack([x.index_select(0, cells) @ own.mT for cells, own in zip(order, inputs, strict=True)])
    return states_of_gates(gates + bias.unsqueeze(1), weight, hidden, memory, sweep, rank)


def states_of_gates(
    gates: Tensor, weight: Tensor, hidden: Tensor, memory: Tensor, sweep: Sweep, rank: Tensor
) -> Tensor:
    """The same from what comes of inputs and bias, ``(directions, cells, batch, 4 * planes)``."""
    states = [hidden[:, None, None].expand(-1, 1, gates.shape[2], -1)]
    cells, before = states[0], 0  # of the step before, which begins at this cell; nothing is read of them at first
    for step in sweep.steps:
        taps = [_read(states[-1], hidden, link, step, before) for link in step.taps]
        given = (torch.cat(taps, 3).flatten(1, 2) @ weight.mT).unflatten(1, (-1, gates.shape[2]))
        z = gates[:, step.start : step.stop] + given
        cells, state = lstm_cell(z, _read(cells, memory, step.taps[sweep.carry], step, before))
        states.append(state)
        before = step.start
    found = torch.cat(states[1:], 1)
    return torch.stack([own.index_select(0, places) for own, places in zip(found, rank, strict=True)])


def lstm_cell(z: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """New memory and state ``(..., planes)`` from pre-activations o, f, i, g and the memory before."""
    output, forget, write, update = z.split_with_sizes([memory.shape[-1]] * 4, -1)
    memory = torch.addcmul(torch.sigmoid(forget) * memory, torch.sigmoid(write), torch.tanh(update))
    return memory, torch.sigmoid(output) * torch.tanh(memory)


def _read(states: Tensor, border: Tensor, link: Link, step: Step, before: int) -> Tensor:
    """What one tap of a step reads of ``states``, those of the step before, which begins at cell ``before``."""
    ahead, behind = link.start - step.start, step.stop - link.start - link.count
    parts = [border[:, None, None].expand(-1, count, states.shape[2], -1) for count in (ahead, behind)]
    if link.count:
        parts.insert(1, states.narrow(1, link.source - before, link.count))
    return torch.cat(parts, 1)


class _Scan(torch.autograd.Function):
    """Inputs as those of ``lstm_scan``, after whether a gradient may be asked for."""

    @staticmethod
    def forward(ctx: Any, differentiable: bool, sweep: Sweep, order: Tensor, rank: Tensor, *inputs: Tensor) -> Tensor:
        ctx.call = Call(sweep.starts, sweep.links, sweep.carry, order, *inputs)
        states, ctx.saved = ctx.call.forward(differentiable)
        ctx.sweep, ctx.order, ctx.rank = sweep, order, rank
        ctx.save_for_backward(*inputs)
        ctx.states = states.detach()
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        again = torch.is_grad_enabled()  # create_graph=True: this will be differentiated
        if not again and usable([gradient]):
            return None, None, None, None, *ctx.call.backward(ctx.states, ctx.saved, gradient)
        with torch.enable_grad(), torch.autocast(gradient.device.type, enabled=False):
            own = [tensor.view_as(tensor) for tensor in inputs]
            asked = [tensor for tensor in own if tensor.requires_grad]
            states = lstm_scan_plain(*own, ctx.sweep, ctx.order, ctx.rank)  # type: ignore[call-arg]
            found = iter(torch.autograd.grad(states, asked, gradient, create_graph=again))
        return None, None, None, None, *(next(found) if tensor.requires_grad else None for tensor in own)
