"""Layers of LSTM cells over the rows of an image: a row at a time, or a diagonal at a time from both sides.

Maps have places first and features last, ``(places, batch, features)``, places in raster order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.nn.convolution import is_plain
from metadensity.nn.functional.lstm_scan import Sweep, lstm_scan, states_of_gates


class RecurrentLayer(ABC, nn.Module):
    """x + W h over ``2 * planes`` features, h the states of LSTM cells of ``planes`` features.

    The residual block and the skip output of van den Oord et al. 2016, "Pixel Recurrent Neural Networks" (section 3.3).

    space: rows and columns. sweep: the steps. order: of each direction the places of the cells, ``(directions,
    places)``. input_taps: places that come into a cell, this one and those to its left. skip: features of the skip
    output. context: features of a vector for all places; 0 for none. attended: of what is read at each place; 0 for
    none.
    """

    order: Tensor
    rank: Tensor

    def __init__(
        self,
        space: tuple[int, int],
        sweep: Sweep,
        order: Tensor,
        input_taps: int,
        planes: int,
        skip: int,
        context: int = 0,
        attended: int = 0,
    ) -> None:
        super().__init__()
        directions = len(order)
        self.space, self.sweep, self.directions, self.planes = space, sweep, directions, planes
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("rank", order.argsort(1), persistent=False)
        self.input_taps, self.state_taps = input_taps, len(sweep.steps[0].taps)
        self.inputs = nn.ModuleList(nn.Linear(input_taps * 2 * planes, 4 * planes) for _ in range(directions))
        self.states = nn.Parameter(torch.empty(directions, 4 * planes, self.state_taps * planes))
        self.hidden = nn.Parameter(torch.zeros(directions, planes))  # beyond the border, as is the next
        self.memory = nn.Parameter(torch.zeros(directions, planes))
        self.contexts = nn.Linear(context, directions * 4 * planes, bias=False) if context else None
        self.reads = nn.ModuleList(
            nn.Linear(attended, 4 * planes, bias=False) for _ in range(directions if attended else 0)
        )
        self.out = nn.Linear(planes, 2 * planes + skip)
        bound = (self.state_taps * planes) ** -0.5
        nn.init.uniform_(self.states, -bound, bound)
        with torch.no_grad():
            for linear in self.inputs:
                cast(Tensor, linear.bias)[planes : 2 * planes] += 1  # forget gates begin open

    @property
    def is_plain(self) -> bool:
        """Whether its weights say all that it does; otherwise its parts have to be called. See ``is_plain``."""
        return is_plain(self, RecurrentLayer) and self._products_are_plain and is_plain(self.out, nn.Linear)

    @property
    def _products_are_plain(self) -> bool:
        return all(is_plain(linear, nn.Linear) for linear in (*self.inputs, *self.reads))

    def biases(self, vector: Tensor) -> list[Tensor]:
        """What the task vector ``(tasks, context)`` adds to the gates, ``(tasks, directions * 4 * planes)``."""
        return [] if self.contexts is None else [self.contexts(vector)]

    def weights(self) -> Tensor:
        """Of inputs, and of what is read where something is: ``(directions, 4 * planes, features)``."""
        parts = [torch.stack([cast(Tensor, linear.weight) for linear in self.inputs])]
        parts += [torch.stack([cast(Tensor, linear.weight) for linear in self.reads])] if len(self.reads) else []
        return torch.cat(parts, 2)

    def bias(self, biases: list[Tensor]) -> Tensor:
        """Of the gates, with that of the task: ``(tasks or 1, directions, 4 * planes)``."""
        own = torch.stack([cast(Tensor, linear.bias) for linear in self.inputs]).unsqueeze(0)
        return own + biases[0].unflatten(1, own.shape[1:]) if biases else own

    def forward(
        self, x: Tensor, biases: list[Tensor], attended: Tensor | None = None, skip_sum: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``(places, samples * tasks, 2 * planes)`` to the same, and to ``skip_sum`` plus the skip output.

        attended: ``(places, samples * tasks, values)``.
        """
        given, batch = self.taken(x), x.shape[1]
        weights = self.states, self.hidden, self.memory
        if len(self.reads) and attended is not None:
            given = torch.cat([given, attended.to(given.dtype)], 2)
        if self._products_are_plain:
            bias = self.bias(biases)
            bias = bias.repeat(batch // len(bias), 1, 1).transpose(0, 1)
            own = self.weights()[:, :, : given.shape[2]]
            states = lstm_scan(given, own, bias, *weights, self.sweep, self.order, self.rank)
        else:
            gates = self._called(given) + self._of_tasks(biases, batch)
            states = states_of_gates(gates.to(self.states.dtype), *weights, self.sweep, self.rank)
        onward, skip = self.out(self.joined(states)).split([x.shape[2], self.out.out_features - x.shape[2]], 2)
        return x + onward, skip if skip_sum is None else skip_sum + skip

    def _called(self, given: Tensor) -> Tensor:
        """What modules make of inputs and of what is read: ``(directions, cells, batch, 4 * planes)``."""
        size, made = self.input_taps * 2 * self.planes, list[Tensor]()
        for d, linear in enumerate(self.inputs):
            cells = given.index_select(0, self.order[d])
            own = linear(cells[..., :size])
            made.append(own + self.reads[d](cells[..., size:]) if given.shape[2] > size else own)
        return torch.stack(made)

    def _of_tasks(self, biases: list[Tensor], batch: int) -> Tensor | float:
        if not biases:
            return 0.0
        own = biases[0].unflatten(1, (self.directions, -1))
        return own.repeat(batch // len(own), 1, 1).transpose(0, 1).unsqueeze(1)

    def taken(self, x: Tensor) -> Tensor:
        """What the input taps of each place take of ``(places, batch, 2 * planes)``."""
        return x

    @abstractmethod
    def joined(self, states: Tensor) -> Tensor:
        """What a place sees of states ``(directions, places, batch, planes)``: ``(places, batch, planes)``."""


class RowLayer(RecurrentLayer):
    """A row at a time, each cell given ``kernel_size`` cells of the row above, and inputs from its left half."""

    def __init__(self, space: tuple[int, int], kernel_size: int, *sizes: int) -> None:
        rows, width = space
        sweep = Sweep.of([(0, width)] * rows, taps=kernel_size, carry=kernel_size // 2)
        super().__init__(space, sweep, torch.arange(rows * width)[None], kernel_size // 2 + 1, *sizes)

    def taken(self, x: Tensor) -> Tensor:
        """See ``RecurrentLayer``: the leftmost place first."""
        grid = x.unflatten(0, self.space)
        backs = [min(back, self.space[1]) for back in range(self.input_taps - 1, 0, -1)]
        shifted = [F.pad(grid, [0, 0, 0, 0, back, -back]) for back in backs]
        return torch.cat([*shifted, grid], 3).flatten(0, 1)

    def joined(self, states: Tensor) -> Tensor:
        """See ``RecurrentLayer``."""
        return states[0]


class DiagonalLayer(RecurrentLayer):
    """A diagonal at a time: each cell is given the one above and the one to its left, or from the right, to its right.

    Cells of a step are those that the paper has in one column once the rows of the map are skewed; no map is skewed
    here, and nothing is computed beside the image. The map from the right is flipped before that, and what comes of it
    is seen a row lower, or a place would see what is to its right. A single row has one direction.
    """

    def __init__(self, space: tuple[int, int], *sizes: int) -> None:
        rows, width = space
        spans = [(max(0, k - width + 1), min(k + 1, rows)) for k in range(rows + width - 1)]
        cells = [(row, k - row) for k, span in enumerate(spans) for row in range(*span)]
        order = torch.tensor([[row * width + column, row * width + width - 1 - column] for row, column in cells]).T
        super().__init__(space, Sweep.of(spans, taps=2, carry=1), order[: 2 if rows > 1 else 1].contiguous(), 1, *sizes)

    def joined(self, states: Tensor) -> Tensor:
        """See ``RecurrentLayer``."""
        if self.directions == 1:
            return states[0]
        return states[0] + F.pad(states[1], [0, 0, 0, 0, self.space[1], -self.space[1]])
