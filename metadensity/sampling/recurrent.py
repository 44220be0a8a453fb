"""The cached sampler of PixelRNN: two updates of a cell for each place and layer, or one of a Row LSTM's.

What a place is given by the row above is known for the whole row before it begins, in all layers at once. The map from
the right of a Diagonal BiLSTM is made when a row is finished, for all layers together, and the next row sees it.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.drawing import Draws
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.pixelrnn import PixelRNN
from metadensity.nn.causal import CausalConv
from metadensity.nn.functional.lstm_scan import lstm_cell
from metadensity.nn.inputs import to_unit_range
from metadensity.nn.recurrent import DiagonalLayer, RecurrentLayer
from metadensity.sampling.naive import sample_by_logits


def sample_recurrent(network: PixelRNN, condition: Conditioning, draws: Draws) -> Tensor:
    """Sample with nothing computed twice; see ``sample_by_logits``.

    A network with hooks or parts of others in it is called as a whole for each pixel, see ``is_plain``.
    """
    if not network.is_plain:
        return sample_by_logits(lambda pixels: network(pixels, condition), draws)
    pixels = torch.zeros(draws.uniforms.shape, dtype=torch.long, device=draws.uniforms.device)
    with torch.inference_mode(), torch.autocast(pixels.device.type, enabled=False):
        sampler = RecurrentSampler(network, condition, len(pixels))
        for row, prefix in enumerate(itertools.product(*map(range, network.event_shape[1:-1]))):
            line: Any = (slice(None), slice(None), *prefix)
            _draw_row(sampler, pixels[line], row, draws.map(operator.itemgetter(line)))
    return pixels


def _draw_row(sampler: RecurrentSampler, pixels: Tensor, row: int, draws: Draws) -> None:
    """Draw into ``pixels``, a view ``(batch, C, width)`` of the row."""
    sampler.begin_row(row)
    for t in range(pixels.shape[2]):
        here, features = pixels[..., t], sampler.step(t)
        for channel in range(pixels.shape[1]):
            logits = sampler.network.head.logits_at(features, here, channel)
            here[:, channel] = draws.map(operator.itemgetter((slice(None), channel, t))).levels(logits)
        sampler.take(here, row, t)
    if row + 1 < sampler.rows:
        for t in range(pixels.shape[2], sampler.width):  # beyond the image, which the row below sees
            sampler.step(t)
        sampler.end_row(row)


class RecurrentSampler:
    """State of one sampling run.

    hidden: states of the row above in all layers, ``(directions, layers, width, batch, planes)``. Of this row as far as
    it is drawn, by layer and place: given, what came into a layer, with zeros before the first place; made, states.
    left: the state and the memory of the place before, by layer.
    """

    def __init__(self, network: PixelRNN, condition: Conditioning, batch: int) -> None:
        self.network, self.memory_of_support, self.batch = network, condition.memory, batch
        self.layers = layers = [cast(RecurrentLayer, layer) for layer in network.layers]
        (rows, width), planes, first = network.space, network.planes, layers[0]
        self.rows, self.width, self.planes, self.taps = rows, width, planes, first.input_taps
        self.diagonal, self.directions = isinstance(first, DiagonalLayer), first.directions

        # Weights inputs first, of each direction and layer, and where the network begins and ends.
        self.states = torch.stack([layer.states.mT for layer in layers], 1)
        self.inputs = torch.stack([_inputs_first(layer.inputs) for layer in layers], 1)
        beside = [self.states[0, :, planes:]] if self.diagonal else []
        self.step_weights = torch.cat([self.inputs[0], *beside], 1).unbind()
        biases = [layer.bias(own) for layer, own in zip(layers, condition.biases, strict=True)]
        self.bias = torch.stack([bias.repeat(batch // len(bias), 1, 1) for bias in biases]).permute(2, 0, 1, 3)
        outs = torch.stack([layer.out.weight.T for layer in layers])
        out_bias = torch.stack([layer.out.bias for layer in layers])
        self.onward, self.onward_bias = outs[:, :, : 2 * planes].unbind(), out_bias[:, : 2 * planes].unbind()
        self.skips, self.skip_bias = outs[:, :, 2 * planes :].flatten(0, 1), out_bias[:, 2 * planes :].sum(0)
        self.reading = [layer for layer in layers if len(layer.reads)] if condition.memory is not None else []
        reads = [_inputs_first(layer.reads) for layer in self.reading]
        self.reads = torch.stack(reads, 1) if reads else None  # (directions, layers that read, values, 4 * planes)

        pairs = [[layer.hidden, layer.memory] for layer in layers]
        self.border = [torch.stack(each, 1).unsqueeze(2).repeat(1, 1, batch, 1) for each in zip(*pairs, strict=True)]
        self.hidden, memory = (each[:, :, None].repeat(1, 1, width, 1, 1) for each in self.border)
        self.memory = _lists(memory[0])  # of a Row LSTM
        self.from_above = torch.zeros_like(self.hidden[0])  # what this row sees of the map from the right
        self.read = self.hidden.new_zeros(width, batch, 0 if self.reads is None else self.reads.shape[2])

        convs = [cast(CausalConv, conv) for conv in network.first]
        self.above, self.beside = (convs[0] if len(convs) > 1 else None), convs[-1]
        self.reach, features = self.beside.reach, network.input.features
        self.beside_weight = self.beside.weight[:, :, 0].permute(2, 1, 0).flatten(0, 1)  # place after place
        self.positions = network.input.positions.flatten(1).unflatten(1, (rows, -1))
        # What was drawn, with a border: of rows above as images, of this row place after place
        self.drawn = self.hidden.new_zeros(batch, features, rows + self.reach, width + 2 * self.reach)
        self.line = self.hidden.new_zeros(batch, width + self.reach, features)

    def begin_row(self, row: int) -> None:
        """Compute what the cells of this row are given by the rows above it."""
        planes, edge = self.planes, self.border[0][0].unsqueeze(1)
        first = self.beside.bias.expand(self.width, self.batch, -1)
        if self.above is not None:
            first = first + self.above.convolve(self.drawn[:, :, row : row + self.above.taps])[:, :, 0].permute(2, 0, 1)
        if self.diagonal:
            base = self.hidden[0].flatten(1, 2) @ self.states[0, :, :planes]
        else:
            half = self.states.shape[2] // planes // 2
            padded = torch.cat([edge.expand(-1, half, -1, -1), self.hidden[0], edge.expand(-1, half, -1, -1)], 1)
            taps = [padded[:, tap : tap + self.width] for tap in range(2 * half + 1)]
            base = torch.cat(taps, -1).flatten(1, 2) @ self.states[0]
        base = base.unflatten(1, (self.width, -1)) + self.bias[0].unsqueeze(1)
        # Place by place, layer by layer, as a list is quicker to take from than a tensor.
        self.first = first.unbind()
        self.base, self.from_right = _lists(base), _lists(self.from_above)
        self.line.zero_()
        self.left = [list(border[0].unbind()) for border in self.border]
        nothing = self.hidden.new_zeros(self.batch, 2 * planes)
        self.given = [[nothing] * (self.taps - 1) for _ in self.layers]
        self.made: list[list[Tensor]] = [[] for _ in self.layers]

    def step(self, t: int) -> Tensor:
        """The features ``(batch, penultimate)`` of place ``t`` of the row, of which those before it are drawn."""
        network, reads, seen = self.network, None, list[Tensor]()
        x = torch.addmm(self.first[t], self.line[:, t : t + self.reach].flatten(1), self.beside_weight)
        states, memories = (list(each) for each in self.left)
        for i, weight in enumerate(self.step_weights):
            if self.reads is not None and i == network.attention_layer:
                reads = iter(self._read(t, x).split(4 * self.planes, 1))
            self.given[i].append(x)
            taken = torch.cat([x, states[i]] if self.diagonal else self.given[i][t : t + self.taps], 1)
            z = torch.addmm(self.base[i][t], taken, weight)
            memory = memories[i] if self.diagonal else self.memory[i][t]
            memory, state = lstm_cell(z if reads is None else z + next(reads), memory)
            self.made[i].append(state)
            if self.diagonal:
                states[i], memories[i] = state, memory
                state = state + self.from_right[i][t]
            else:
                self.memory[i][t] = memory
            seen.append(state)
            x = x + torch.addmm(self.onward_bias[i], state, self.onward[i])
        self.left = [states, memories]
        skip_sum = torch.addmm(self.skip_bias, torch.cat(seen, 1), self.skips)
        return F.linear(F.relu(skip_sum), network.penult.weight.flatten(1), network.penult.bias)

    def _read(self, t: int, x: Tensor) -> Tensor:
        """What place ``t`` reads of the support, as the gates of all layers that read are given it."""
        attention = self.network.attention
        assert attention is not None
        assert self.memory_of_support is not None
        assert self.reads is not None
        space = (None,) * (len(self.network.event_shape) - 1)
        self.read[t] = attention(self.memory_of_support, x[(..., *space)]).flatten(1)
        return self.read[t] @ self.reads[0].transpose(0, 1).flatten(1)

    def take(self, here: Tensor, row: int, t: int) -> None:
        """Put the pixels ``(batch, C)`` at place ``t`` of the row where the convolution will look."""
        where = self.positions[:, row, t]
        scaled = to_unit_range(here, self.network.levels, where.dtype)
        self.line[:, t + self.reach] = torch.cat([scaled, where.expand(len(here), -1)], 1)

    def end_row(self, row: int) -> None:
        """Let rows below see this one: as pixels, and in the map from the right."""
        inner = slice(self.reach, self.reach + self.width)
        self.drawn[:, :, row + self.reach, inner] = self.line[:, self.reach :].mT
        self.hidden[0] = torch.stack([torch.stack(each) for each in self.made])
        if self.directions == 1:
            return
        planes, shape = self.planes, self.hidden.shape[2:4]
        given = torch.stack([torch.stack(each) for each in self.given])
        gates = given.flatten(1, 2) @ self.inputs[1]
        gates = gates + self.hidden[1].flatten(1, 2) @ self.states[1, :, :planes]
        gates = gates.unflatten(1, shape) + self.bias[1].unsqueeze(1)
        if self.reads is not None:
            gates[-len(self.reading) :] += (self.read.flatten(0, 1) @ self.reads[1]).unflatten(1, shape)
        state, memory = (border[1] for border in self.border)
        for t in range(self.width - 1, -1, -1):
            z = torch.baddbmm(gates[:, t], state, self.states[1, :, planes:])
            memory, state = lstm_cell(z, memory)
            self.hidden[1, :, t] = state
        self.from_above = self.hidden[1]


def _inputs_first(linears: Iterable[nn.Module]) -> Tensor:
    """``(directions, inputs, outputs)``."""
    return torch.stack([cast(Tensor, linear.weight).T for linear in linears])


def _lists(tensor: Tensor) -> list[list[Tensor]]:
    """Of ``(layers, places, ...)`` those of each layer, place by place."""
    return [list(each) for each in tensor.unbind()]
