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
    """State of one sampling run: of all layers, those of the row above, or of this one as far as it is drawn.

    hidden: states ``(directions, layers, width, batch, planes)``. given: what came into each layer at each place of the
    row, ``(layers, batch, places, 2 * planes)``, with as many places before the first as input taps look back.
    """

    def __init__(self, network: PixelRNN, condition: Conditioning, batch: int) -> None:
        self.network, self.memory_of_support, self.batch = network, condition.memory, batch
        self.layers = layers = [cast(RecurrentLayer, layer) for layer in network.layers]
        (rows, width), planes, first, count = network.space, network.planes, layers[0], len(layers)
        self.rows, self.width, self.planes, self.taps = rows, width, planes, first.input_taps
        self.diagonal, self.directions = isinstance(first, DiagonalLayer), first.directions

        # Weights inputs first, of each direction and layer, and where the network begins and ends.
        self.states = torch.stack([layer.states.mT for layer in layers], 1)
        self.inputs = torch.stack([_inputs_first(layer.inputs) for layer in layers], 1)
        self.step_weights = (
            torch.cat([self.inputs[0], self.states[0, :, planes:]], 1) if self.diagonal else self.inputs[0]
        )
        biases = [layer.bias(own) for layer, own in zip(layers, condition.biases, strict=True)]
        self.bias = torch.stack([bias.repeat(batch // len(bias), 1, 1) for bias in biases]).permute(2, 0, 1, 3)
        outs = torch.stack([layer.out.weight.T for layer in layers])
        out_bias = torch.stack([layer.out.bias for layer in layers])
        self.onward, self.onward_bias = outs[:, :, : 2 * planes].contiguous(), out_bias[:, : 2 * planes]
        self.skips, self.skip_bias = outs[:, :, 2 * planes :].flatten(0, 1), out_bias[:, 2 * planes :].sum(0)
        self.reading = [layer for layer in layers if len(layer.reads)] if condition.memory is not None else []
        reads = [_inputs_first(layer.reads) for layer in self.reading]
        self.reads = torch.stack(reads, 1) if reads else None  # (directions, layers that read, values, 4 * planes)

        pairs = [[layer.hidden, layer.memory] for layer in layers]
        self.border = [torch.stack(each, 1).unsqueeze(2).repeat(1, 1, batch, 1) for each in zip(*pairs, strict=True)]
        self.hidden, self.memory = (each[:, :, None].repeat(1, 1, width, 1, 1) for each in self.border)
        self.from_right = torch.zeros_like(self.hidden[0])
        self.given = self.hidden.new_zeros(count, batch, width + self.taps - 1, 2 * planes)
        self.read = self.hidden.new_zeros(width, batch, 0 if self.reads is None else self.reads.shape[2])
        self.seen = self.hidden.new_empty(batch, count, planes)  # of all layers at a place, as their outputs see it

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
        self.first = self.beside.bias.expand(self.width, self.batch, -1)
        if self.above is not None:
            rows = self.above.convolve(self.drawn[:, :, row : row + self.above.taps])[:, :, 0]
            self.first = self.first + rows.permute(2, 0, 1)
        if self.diagonal:
            base = self.hidden[0].flatten(1, 2) @ self.states[0, :, :planes]
        else:
            half = self.states.shape[2] // planes // 2
            padded = torch.cat([edge.expand(-1, half, -1, -1), self.hidden[0], edge.expand(-1, half, -1, -1)], 1)
            taps = [padded[:, tap : tap + self.width] for tap in range(2 * half + 1)]
            base = torch.cat(taps, -1).flatten(1, 2) @ self.states[0]
        self.base = base.unflatten(1, (self.width, -1)) + self.bias[0].unsqueeze(1)
        self.line.zero_()
        self.beside_state, self.beside_memory = (border[0].clone() for border in self.border)

    def step(self, t: int) -> Tensor:
        """The features ``(batch, penultimate)`` of place ``t`` of the row, of which those before it are drawn."""
        network, planes, reads = self.network, self.planes, None
        window = self.line[:, t : t + self.reach].flatten(1)
        x = torch.addmm(self.first[t], window, self.beside_weight)
        for i in range(len(self.layers)):
            if self.reads is not None and i == network.attention_layer:
                reads = iter(self._read(t, x).split(4 * planes, 1))
            self.given[i, :, t + self.taps - 1] = x
            if self.diagonal:
                taken, memory = torch.cat([x, self.beside_state[i]], 1), self.beside_memory
            else:
                taken, memory = self.given[i, :, t : t + self.taps].flatten(1), self.memory[0, :, t]
            z = torch.addmm(self.base[i, t], taken, self.step_weights[i])
            memory[i], state = lstm_cell(z if reads is None else z + next(reads), memory[i])
            self.hidden[0, i, t] = state
            if self.diagonal:
                self.beside_state[i] = state
                state = state + self.from_right[i, t]
            self.seen[:, i] = state
            x = x + torch.addmm(self.onward_bias[i], state, self.onward[i])
        skip_sum = torch.addmm(self.skip_bias, self.seen.flatten(1), self.skips)
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
        if self.directions == 1:
            return
        planes, shape = self.planes, self.hidden.shape[2:4]
        gates = self.given.transpose(1, 2).flatten(1, 2) @ self.inputs[1]
        gates = gates + self.hidden[1].flatten(1, 2) @ self.states[1, :, :planes]
        gates = gates.unflatten(1, shape) + self.bias[1].unsqueeze(1)
        if self.reads is not None:
            gates[-len(self.reading) :] += (self.read.flatten(0, 1) @ self.reads[1]).unflatten(1, shape)
        state, memory = (border[1] for border in self.border)
        for t in range(self.width - 1, -1, -1):
            z = torch.baddbmm(gates[:, t], state, self.states[1, :, planes:])
            memory, state = lstm_cell(z, memory)
            self.hidden[1, :, t] = state
        self.from_right = self.hidden[1]


def _inputs_first(linears: Iterable[nn.Module]) -> Tensor:
    """``(directions, inputs, outputs)``."""
    return torch.stack([cast(Tensor, linear.weight).T for linear in linears])
