"""LSTM cells over a map, a row or a diagonal at a time: as it is written, and with all that can be done at once outside.

Maps have features first, ``(directions, features, cells, batch)``, so that a step works on whole stretches of memory.
Cells stand in the order in which they are computed, those of a step beside one another; see ``Sweep``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metadensity.nn.functional.blockwise import forward_mode


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

        A cell on line n reads, by tap t, the cell on line ``n + t - carry`` of the step before; where there is none, the
        border.
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

    def border(self) -> Tensor:
        """Which taps read the border, ``(taps, cells)``, as 0 or 1."""
        mask = torch.ones(len(self.steps[0].taps), self.steps[-1].stop)
        for step in self.steps:
            for tap, link in enumerate(step.taps):
                mask[tap, link.start : link.start + link.count] = 0
        return mask


def lstm_scan(
    gates: Tensor, bias: Tensor, weight: Tensor, hidden: Tensor, memory: Tensor, sweep: Sweep
) -> Tensor:
    """The states ``(directions, planes, cells, batch)`` of LSTM cells that read one another as ``sweep`` says.

    c = f * c' + i * g and h = o * tanh(c), of o, f, i = sigmoid and g = tanh of ``gates`` plus what the state kernel
    makes of earlier states (van den Oord et al. 2016, "Pixel Recurrent Neural Networks", equation 3).

    gates: ``(directions, 4 * planes, cells, batch)``, what comes of inputs, in the order o, f, i, g. bias:
    ``(directions, 4 * planes, batch)``, the same for all cells. weight: ``(directions, 4 * planes, taps * planes)``, tap
    after tap. hidden, memory: the state beyond the border, ``(directions, planes)``.

    As ``lstm_scan_plain``, which it is under torch.func, where it is compiled, in forward mode, and for the gradient of
    the gradient. In the precision of the weight, whatever autocast says.
    """
    gates, bias = gates.to(weight.dtype), bias.to(weight.dtype)
    with torch.autocast(gates.device.type, enabled=False):
        if torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling() or forward_mode():
            return lstm_scan_plain(gates, bias, weight, hidden, memory, sweep)
        result: Tensor = _Scan.apply(sweep, gates, bias, weight, hidden, memory)
    return result


def lstm_scan_plain(
    gates: Tensor, bias: Tensor, weight: Tensor, hidden: Tensor, memory: Tensor, sweep: Sweep
) -> Tensor:
    """``lstm_scan`` a step after the other in torch's operations: the definition."""
    states = [hidden[..., None, None].expand(-1, -1, 1, gates.shape[-1])]
    cells, before = states[0], 0  # of the step before, which begins at this cell; nothing is read of them at first
    for step in sweep.steps:
        taps = [_read(states[-1], hidden, link, step, before) for link in step.taps]
        given = gates[:, :, step.start : step.stop] + bias.unsqueeze(2)
        z = given + (weight @ torch.cat(taps, 1).flatten(2)).unflatten(2, given.shape[2:])
        cells, state = lstm_cell(z, _read(cells, memory, step.taps[sweep.carry], step, before))
        states.append(state)
        before = step.start
    return torch.cat(states[1:], 2)


def lstm_cell(z: Tensor, memory: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """New memory and state from pre-activations o, f, i, g along ``dim``, and the memory before."""
    output, forget, write, update = z.chunk(4, dim)
    memory = torch.sigmoid(forget) * memory + torch.sigmoid(write) * torch.tanh(update)
    return memory, torch.sigmoid(output) * torch.tanh(memory)


def _read(states: Tensor, border: Tensor, link: Link, step: Step, before: int) -> Tensor:
    """What one tap of a step reads of ``states``, those of the step before, which begins at cell ``before``."""
    ahead, behind = link.start - step.start, step.stop - link.start - link.count
    parts = [border[..., None, None].expand(-1, -1, count, states.shape[-1]) for count in (ahead, behind)]
    if link.count:
        parts.insert(1, states.narrow(2, link.source - before, link.count))
    return torch.cat(parts, 2)


class _Scan(torch.autograd.Function):
    """States are laid out as the taps read them, so that a step is one product, and so is the gradient of a weight."""

    @staticmethod
    def forward(
        ctx: Any, sweep: Sweep, gates: Tensor, bias: Tensor, weight: Tensor, hidden: Tensor, memory: Tensor
    ) -> Tensor:
        directions, width, cells, batch = gates.shape
        planes, taps = width // 4, weight.shape[2] // (width // 4)
        size, bias = cells * batch, bias.unsqueeze(2)
        activations = gates.new_empty(directions, width, size)
        read = hidden.repeat(1, taps).unsqueeze(2).repeat(1, 1, size)
        earlier = memory.unsqueeze(2).repeat(1, 1, size)
        bounded, states = (gates.new_empty(directions, planes, size) for _ in range(2))
        for step, after in _with_next(sweep.steps):
            here = slice(step.start * batch, step.stop * batch)
            z = activations[:, :, here]
            torch.add(gates[:, :, step.start : step.stop], bias, out=z.unflatten(2, (-1, batch)))
            for d in range(directions):
                z[d].addmm_(weight[d], read[d, :, here])
            torch.sigmoid_(z[:, : 3 * planes])
            torch.tanh_(z[:, 3 * planes :])
            output, forget, write, update = z.split(planes, 1)
            new = torch.mul(forget, earlier[:, :, here]).addcmul_(write, update)
            tanh = torch.tanh(new, out=bounded[:, :, here])
            state = torch.mul(output, tanh, out=states[:, :, here])
            if after is None:
                continue
            for tap, link in enumerate(after.taps):
                if link.count:
                    there, source = _slices(link, batch, step.start)
                    read[:, tap * planes : (tap + 1) * planes, there] = state[:, :, source]
                    if tap == sweep.carry:
                        earlier[:, :, there] = new[:, :, source]
        ctx.sweep = sweep
        ctx.save_for_backward(gates, bias.squeeze(2), weight, hidden, memory, activations, read, earlier, bounded)
        return states.unflatten(2, (cells, batch))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gates, bias, weight, hidden, memory, activations, read, earlier, bounded = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: this will be differentiated
            inputs = [tensor.view_as(tensor) for tensor in (gates, bias, weight, hidden, memory)]
            asked = [tensor for tensor in inputs if tensor.requires_grad]
            with torch.autocast(gates.device.type, enabled=False):
                states = lstm_scan_plain(*inputs, ctx.sweep)  # type: ignore[arg-type]
                found = iter(torch.autograd.grad(states, asked, gradient, create_graph=True))
            return None, *(next(found) if tensor.requires_grad else None for tensor in inputs)
        sweep: Sweep = ctx.sweep
        (directions, width, _, batch), planes = gates.shape, gates.shape[1] // 4
        taps, transposed = weight.shape[2] // planes, weight.mT.contiguous()
        of_states = gradient.flatten(2).clone(memory_format=torch.contiguous_format)
        slopes, of_read = torch.empty_like(activations), torch.empty_like(read)
        of_memory, of_earlier = torch.zeros_like(bounded), torch.empty_like(bounded)
        for step, before in _with_next(sweep.steps[::-1]):
            here = slice(step.start * batch, step.stop * batch)
            output, forget, write, update = activations[:, :, here].split(planes, 1)
            tanh, own, slope = bounded[:, :, here], of_states[:, :, here], slopes[:, :, here]
            by_output, by_forget, by_write, by_update = slope.split(planes, 1)
            new = of_memory[:, :, here]
            new.add_(torch.ops.aten.tanh_backward(own * output, tanh))
            torch.mul(own, tanh, out=by_output)
            torch.mul(new, earlier[:, :, here], out=by_forget)
            torch.mul(new, update, out=by_write)
            torch.mul(new, write, out=by_update)
            bounds, gate = slope[:, : 3 * planes], activations[:, : 3 * planes, here]
            torch.ops.aten.sigmoid_backward.grad_input(bounds, gate, grad_input=bounds)
            torch.ops.aten.tanh_backward.grad_input(by_update, update, grad_input=by_update)
            torch.mul(new, forget, out=of_earlier[:, :, here])
            for d in range(directions):
                torch.mm(transposed[d], slope[d], out=of_read[d, :, here])
            if before is None:
                continue
            for tap, link in enumerate(step.taps):
                if link.count:
                    there, source = _slices(link, batch)
                    of_states[:, :, source] += of_read[:, tap * planes : (tap + 1) * planes, there]
                    if tap == sweep.carry:
                        of_memory[:, :, source] = of_earlier[:, :, there]
        with torch.autocast(gates.device.type, enabled=False):
            border = sweep.border().to(of_read).repeat_interleave(batch, 1)
            of_weight = slopes @ read.mT
            of_hidden = torch.einsum("dtps,ts->dp", of_read.unflatten(1, (taps, planes)), border)
            of_start = of_earlier @ border[sweep.carry]
        of_gates = slopes.unflatten(2, (-1, batch))
        return None, of_gates, of_gates.sum(2), of_weight, of_hidden, of_start


def _slices(link: Link, batch: int, start: int = 0) -> tuple[slice, slice]:
    """Where the cells of a link are, and what they read, counted from cell ``start``."""
    source = (link.source - start) * batch
    return slice(link.start * batch, (link.start + link.count) * batch), slice(source, source + link.count * batch)


def _with_next(steps: Sequence[Step]) -> Iterator[tuple[Step, Step | None]]:
    return zip(steps, [*steps[1:], None], strict=True)
