"""Layers of LSTM cells over the rows of an image: a row at a time, or a diagonal at a time from both sides.

Maps have features first, ``(features, places, batch)``, places in raster order: products are of whole maps, and to put
places into another order moves stretches of memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.nn.convolution import is_plain
from metadensity.nn.functional.lstm_scan import Sweep, lstm_scan


class RecurrentLayer(ABC, nn.Module):
    """x + W h over ``2 * planes`` features, h the states of LSTM cells of ``planes`` features.

    The residual block and the skip output of van den Oord et al. 2016, "Pixel Recurrent Neural Networks" (section 3.3).

    space: rows and columns. sweep: the order of the cells. directions: how many sets of cells there are. input_taps:
    places that come into a cell, this one and those to its left. skip: features of the skip output. context: features
    of a vector for all places; 0 for none. attended: of what is read at each place; 0 for none.
    """

    def __init__(
        self,
        space: tuple[int, int],
        sweep: Sweep,
        directions: int,
        input_taps: int,
        planes: int,
        skip: int,
        context: int = 0,
        attended: int = 0,
    ) -> None:
        super().__init__()
        self.space, self.sweep, self.directions, self.planes = space, sweep, directions, planes
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
        """``(2 * planes, places, batch)`` to the same, and to ``skip_sum`` plus the skip output.

        attended: ``(values, places, batch)``, the batch being ``(samples * tasks)``.
        """
        given = self.taken(x)
        if len(self.reads) and attended is not None:
            given = torch.cat([given, attended.to(given.dtype)])
        given, batch = self.arranged(given), x.shape[2]
        bias = self.bias(biases)
        if self._products_are_plain:
            gates = self.weights()[:, :, : given.shape[1]] @ given.flatten(2)
        else:  # the hooks' own bias is not in ``bias`` then
            gates, bias = self._called(given.flatten(2).mT).mT, bias - self.bias([])
        bias = bias.repeat(batch // len(bias), 1, 1).permute(1, 2, 0)
        states = lstm_scan(
            gates.unflatten(2, given.shape[2:]), bias, self.states, self.hidden, self.memory, self.sweep
        )
        both = of_features(self.out, self.joined(states))
        onward, skip = both.split([len(x), len(both) - len(x)])
        return x + onward, skip if skip_sum is None else skip_sum + skip

    def _called(self, given: Tensor) -> Tensor:
        """What the modules make of ``(directions, positions, features)``."""
        size, made = self.input_taps * 2 * self.planes, list[Tensor]()
        for d, linear in enumerate(self.inputs):
            own = linear(given[d, :, :size])
            made.append(own + self.reads[d](given[d, :, size:]) if given.shape[2] > size else own)
        return torch.stack(made)

    def taken(self, x: Tensor) -> Tensor:
        """What the input taps of each place take of ``(2 * planes, places, batch)``."""
        return x

    @abstractmethod
    def arranged(self, given: Tensor) -> Tensor:
        """``(features, places, batch)`` in the order of the cells, ``(directions, features, cells, batch)``."""

    @abstractmethod
    def joined(self, states: Tensor) -> Tensor:
        """What a place sees of states ``(directions, planes, cells, batch)``: ``(planes, places, batch)``."""


class RowLayer(RecurrentLayer):
    """A row at a time, each cell given ``kernel_size`` cells of the row above, and inputs from its left half."""

    def __init__(self, space: tuple[int, int], kernel_size: int, *sizes: int) -> None:
        rows, width = space
        sweep = Sweep.of([(0, width)] * rows, taps=kernel_size, carry=kernel_size // 2)
        super().__init__(space, sweep, 1, kernel_size // 2 + 1, *sizes)

    def taken(self, x: Tensor) -> Tensor:
        """See ``RecurrentLayer``: the leftmost place first."""
        grid = x.unflatten(1, self.space)
        shifted = [F.pad(grid, [0, 0, back, -back]) for back in range(self.input_taps - 1, 0, -1)]
        return torch.cat([*shifted, grid]).flatten(1, 2)

    def arranged(self, given: Tensor) -> Tensor:
        """See ``RecurrentLayer``."""
        return given.unsqueeze(0)

    def joined(self, states: Tensor) -> Tensor:
        """See ``RecurrentLayer``."""
        return states[0]


class DiagonalLayer(RecurrentLayer):
    """A diagonal at a time: each cell is given the one to its left and the one above, from the left and from the right.

    Cells of a diagonal are those that the paper has in one column once its rows are skewed; no map is skewed here, and
    nothing is computed beside the image. The map from the right is flipped before that, and what comes of it is seen a
    row lower, or a place would see what is to its right. A single row has one direction.
    """

    order: Tensor
    left: Tensor
    right: Tensor

    def __init__(self, space: tuple[int, int], *sizes: int) -> None:
        rows, width = space
        spans = [(max(0, k - width + 1), min(k + 1, rows)) for k in range(rows + width - 1)]
        super().__init__(space, Sweep.of(spans, taps=2, carry=1), 2 if rows > 1 else 1, 1, *sizes)
        cells = [(row, k - row) for k, span in enumerate(spans) for row in range(*span)]
        orders = torch.tensor([[row * width + column, row * width + width - 1 - column] for row, column in cells]).T
        ranks = orders.argsort(1)
        self.register_buffer("order", orders[: self.directions].flatten(), persistent=False)
        self.register_buffer("left", ranks[0], persistent=False)
        self.register_buffer("right", ranks[1, : (rows - 1) * width], persistent=False)

    def arranged(self, given: Tensor) -> Tensor:
        """See ``RecurrentLayer``."""
        return given.index_select(1, self.order).unflatten(1, (self.directions, -1)).transpose(0, 1)

    def joined(self, states: Tensor) -> Tensor:
        """See ``RecurrentLayer``."""
        from_left = states[0].index_select(1, self.left)
        if self.directions == 1:
            return from_left
        return from_left + F.pad(states[1].index_select(1, self.right), [0, 0, self.space[1], 0])


def of_features(linear: nn.Module, x: Tensor) -> Tensor:
    """What a linear layer makes of a map ``(features, places, batch)``."""
    flat = x.flatten(1)
    if is_plain(linear, nn.Linear):
        made = torch.addmm(cast(Tensor, linear.bias)[:, None], cast(Tensor, linear.weight), flat)
    else:
        made = linear(flat.mT).mT
    return made.unflatten(1, x.shape[1:])
