"""LSTM cells over a map as a native kernel: float32 on the CPU."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.native.buffer_pool import empty_from_pool
from metadensity.native.build import CSRC, Arguments, Kernel, fields
from metadensity.native.calls import in_threads, shares

_CELLS_A_THREAD = 2048  # fewer are not worth a thread


class _Scan(Arguments):
    """``Scan`` in the source."""

    _fields_ = fields(
        "directions places batch inputs planes taps carry steps longest",
        "starts links order x bias own own_turned read read_turned hidden memory states saved grad_states grad_x "
        "grad_bias sums",
    )


_number, _pointer = ctypes.c_int64, ctypes.POINTER(_Scan)
KERNEL = Kernel(
    CSRC / "lstm_scan.cpp",
    "PixelRNNs",
    _Scan,
    {
        **{f"scan_{name}": ([_pointer, _number, _number, _number], None) for name in ("forward", "backward")},
        "scan_vector": ([], _number),
    },
)
library = KERNEL.library


class Call:
    """The arguments of the kernel, which are those of ``lstm_scan``, and what they point to.

    starts, links: of the steps, ``(steps + 1,)`` and ``(steps, taps, 3)`` int64. order: ``(directions, places)`` int64.
    """

    def __init__(
        self,
        starts: Tensor,
        links: Tensor,
        carry: int,
        order: Tensor,
        x: Tensor,
        inputs: Tensor,
        bias: Tensor,
        weight: Tensor,
        hidden: Tensor,
        memory: Tensor,
    ) -> None:
        found = library()
        assert found is not None
        self.library = found
        self.vector = found.scan_vector()
        (places, batch, width), (directions, planes), taps = x.shape, hidden.shape, links.shape[1]
        longest = int((starts[1:] - starts[:-1]).max())
        self.call = _Scan(directions, places, batch, width, planes, taps, carry, len(links), longest)
        self.shape, self.taps, self._held = (directions, places, batch, planes), taps, dict[str, Tensor]()
        self.ranges = shares(directions * batch, max(1, _CELLS_A_THREAD // places))
        own, read = inputs.mT, weight.unflatten(2, (taps, planes)).permute(0, 2, 3, 1)  # inputs first
        turned = {"own_turned": inputs, "read_turned": read.mT}
        padded = {name: self._rows(self._whole(each.detach(), -2)) for name, each in turned.items()}
        self._point(starts=starts, links=links, order=order, x=x, bias=bias, hidden=hidden, memory=memory)
        self._point(own=self._rows(own.detach()), read=self._rows(read.detach()), **padded)

    def forward(self, keep: bool) -> tuple[Tensor, Tensor | None]:
        """The states ``(directions, places, batch, planes)``, and what ``backward`` needs if it is to be kept."""
        states = empty_from_pool(*self.shape)
        saved = empty_from_pool(6 * states.numel()) if keep else None
        self._point(states=states, saved=saved)
        self._run("forward")
        return states, saved

    def backward(self, states: Tensor, saved: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        """The gradients of x, inputs, bias, weight, hidden and memory, from that of the states."""
        (directions, places, batch, planes), width, taps = self.shape, self.call.inputs, self.taps
        wide, deep = (-(-each // self.vector) * self.vector for each in (4 * planes, planes))
        sizes = [width * wide, taps * planes * wide, taps * wide, deep]
        sums = states.new_zeros(len(self.ranges), directions, sum(sizes))
        of_x = empty_from_pool(directions, places, batch, width)
        of_bias = states.new_empty(directions, batch, 4 * planes)
        self._point(states=states, saved=saved, grad_states=gradient, grad_x=of_x, grad_bias=of_bias, sums=sums)
        self._run("backward")
        own, read, edges, memory = sums.sum(0).split(sizes, 1)
        own = own.unflatten(1, (width, wide))[..., : 4 * planes].mT
        read = read.unflatten(1, (taps * planes, wide))[..., : 4 * planes].mT
        # The state beyond the border stands in for all cells at its taps, of which ``edges`` is the sum.
        edges = edges.unflatten(1, (taps, wide))[..., : 4 * planes]
        weight = self._held["read"][..., : 4 * planes]  # (directions, taps, planes, 4 * planes)
        of_hidden = torch.einsum("dtpg,dtg->dp", weight, edges)
        read = read + torch.einsum("dp,dtg->dgtp", self._held["hidden"], edges).flatten(2)
        return of_x.sum(0) if directions > 1 else of_x[0], own, of_bias, read, of_hidden, memory[:, :planes]

    def _whole(self, tensor: Tensor, dim: int) -> Tensor:
        """Padded along ``dim``, -1 or -2, to whole vectors."""
        more = -tensor.shape[dim] % self.vector
        return F.pad(tensor, [0, more] if dim == -1 else [0, 0, 0, more])

    def _rows(self, tensor: Tensor) -> Tensor:
        return self._whole(tensor, -1).contiguous()

    def _point(self, **tensors: Tensor | None) -> None:
        for name, tensor in tensors.items():
            if tensor is not None:
                self._held[name] = tensor.detach().contiguous()
                setattr(self.call, name, self._held[name].data_ptr())

    def _run(self, name: str) -> None:
        function = getattr(self.library, f"scan_{name}")
        in_threads(lambda *span: function(ctypes.byref(self.call), *span), self.ranges)
