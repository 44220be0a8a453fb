"""Samplers: the naive one, a full network pass a pixel, and its cached twin.

Both invert the CDF of each pixel at given uniform numbers, so equal numbers give equal images.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.density import invert_cdf
from metadensity.nn.causal import CausalConv, GatedLayer, add_per_task, gate
from metadensity.nn.pixelcnn import Condition, PixelCNN


def sample_naive(network: PixelCNN, condition: Condition, uniforms: Tensor) -> Tensor:
    """Sample with one full pass a pixel and channel: the oracle. uniforms: ``(samples * tasks, C, *space)``."""
    pixels = torch.zeros(uniforms.shape, dtype=torch.long, device=uniforms.device)
    channels, *space = network.event_shape
    for place in itertools.product(*map(range, space)):
        for channel in range(channels):
            index: Any = (slice(None), channel, *place)
            logits = network(pixels, condition).movedim(1, -1)[index]
            pixels[index] = invert_cdf(logits, uniforms[index])
    return pixels


def sample_cached(network: PixelCNN, condition: Condition, uniforms: Tensor) -> Tensor:
    """Sample with nothing computed twice: each stack advances once for each of its slices."""
    return _CachedSampler(network, condition, len(uniforms)).run(uniforms)


class _CachedSampler:
    """State of one sampling run.

    Stack k is computed a slice at a time, as soon as the pixels before the slice are known: in two
    dimensions the vertical stack once a row, the horizontal one once a pixel. Each convolution keeps
    the padded slice of its inputs; only places already visited are ever read from it.

    The last stack, which runs once a pixel, works on matrices ``(batch, features)``: its buffers are
    flat, ``(batch, places * features)``, so that a window is a view; what does not depend on the pixel
    (biases and the links from the stack before) is added up once a line; and the skip outputs of all
    layers are one product at the end.
    """

    def __init__(self, network: PixelCNN, condition: Condition, batch: int) -> None:
        self.network, self.condition, self.batch = network, condition, batch
        self.layers: list[GatedLayer] = list(network.layers)  # type: ignore[arg-type]
        self.channels, *self.space = network.event_shape
        self.dims, self.planes, self.middle = network.dims, network.planes, network.middle
        self.buffers = [[self._buffer(layer.conv(k)) for k in range(self.dims)] for layer in self.layers]
        self.lines = [buffer[-1].transpose(1, 2).flatten(1) for buffer in self.buffers]
        self.before: list[list[Tensor | None]] = [[None] * self.dims for _ in self.layers]
        self.base: list[Tensor] = []
        self._prepare_last_stack()

    def _buffer(self, conv: CausalConv) -> Tensor:
        """Zeros ``(batch, in, n_k + reach, n_j + 2 * reach for j > k)``."""
        k, reach = conv.stack, conv.reach
        padded = [self.space[k] + reach] + [size + 2 * reach for size in self.space[k + 1 :]]
        return conv.weight.new_zeros(self.batch, conv.weight.shape[1], *padded)

    def _prepare_last_stack(self) -> None:
        """The weights of the last stack as matrices, inputs first."""
        convs = [layer.conv(self.dims - 1) for layer in self.layers]
        self.reach = convs[0].reach
        self.taps = [conv.taps * conv.weight.shape[1] for conv in convs]  # width of a window
        self.features = [conv.weight.shape[1] for conv in convs]
        self.kernels = [conv.weight.flatten(2).permute(2, 1, 0).flatten(0, 1).contiguous() for conv in convs]
        outs = [layer.out for layer in self.layers]
        matrices = [out.weight.flatten(1).T for out in outs]  # (planes, planes + skip)
        self.residuals = [matrix[:, : self.planes].contiguous() for matrix in matrices]
        self.residual_biases = [out.bias[: self.planes] for out in outs]
        self.skips = torch.cat([matrix[:, self.planes :] for matrix in matrices])
        self.skip_bias = torch.stack([out.bias[self.planes :] for out in outs]).sum(0)
        self.gates = self.skips.new_empty(self.batch, len(outs) * self.planes)
        reads = [layer.read.weight.flatten(1).T for layer in self.layers if layer.read is not None]
        self.reads = torch.cat(reads, 1) if reads else None  # (values, layers that read * 2 * planes)

    def run(self, uniforms: Tensor) -> Tensor:
        """Draw all pixels in raster order."""
        pixels = torch.zeros(uniforms.shape, dtype=torch.long, device=uniforms.device)
        head, last = self.network.head, self.dims - 1
        for place in itertools.product(*map(range, self.space)):
            for k in range(last):
                if not any(place[k + 1 :]):  # a new slice of stack k begins here
                    self._advance(k, place[: k + 1])
            if place[-1] == 0:
                self._begin_line(place[:-1])
            features = self._step(place[-1])
            for channel in range(self.channels):
                index: Any = (slice(None), channel, *place)
                seen: Any = (slice(None), slice(None), *place)
                pixels[index] = invert_cdf(head.place(features, pixels[seen], channel), uniforms[index])
            here: Any = (slice(None), slice(None), *(slice(t, t + 1) for t in place))
            self._feed(self.network.input(pixels, here).flatten(1), place)
        return pixels

    def _advance(self, k: int, prefix: tuple[int, ...]) -> None:
        """Compute stack k, not the last, in all layers on the slice at ``prefix``.

        The state of a slice has shape ``(batch, features, 1 for each dimension up to k, *space[k + 1:])``.
        """
        state = None
        for i, layer in enumerate(self.layers):
            conv, buffer = layer.conv(k), self.buffers[i][k]
            if state is not None:
                inner = [slice(conv.reach, -conv.reach)] * (self.dims - k - 1)
                target = buffer.select(2, prefix[k] + conv.reach)[(slice(None), slice(None), *inner)]
                target.copy_(state.view(target.shape))
            window = buffer.narrow(2, prefix[k], conv.taps)
            z = conv.convolve(window.view(*window.shape[:2], *[1] * k, *window.shape[2:]))
            before = self.before[i][k]
            if before is not None:
                z = z + before.narrow(2 + k, prefix[k], 1)
            if self.condition.biases[i]:
                z = add_per_task(z, _at(self.condition.biases[i][k], prefix))
            self.before[i][k + 1] = layer.links[k](z)
            state = gate(z) + state if state is not None else gate(z)

    def _begin_line(self, prefix: tuple[int, ...]) -> None:
        """All that the last stack adds to its gates on the line at ``prefix``: ``(places or 1, batch, 2 * planes)``."""
        k = self.dims - 1
        self.base = []
        for i, layer in enumerate(self.layers):
            bias = layer.conv(k).bias
            total = bias.expand(self.batch, -1)[(...,) + (None,) * self.dims]
            before = self.before[i][k]
            if before is not None:
                total = total + before
            if self.condition.biases[i]:
                total = add_per_task(total, _at(self.condition.biases[i][k], prefix))
            self.base.append(total.flatten(2).permute(2, 0, 1).contiguous())

    def _step(self, t: int) -> Tensor:
        """The last stack at place ``t`` of the line, through all layers: features ``(batch, penultimate)``."""
        network, planes, state, reads = self.network, self.planes, None, None
        for i, layer in enumerate(self.layers):
            line, features = self.lines[i], self.features[i]
            if state is not None:
                start = (t + self.reach) * features
                line[:, start : start + features] = state
            if i == self.middle and network.attention is not None and self.condition.memory is not None:
                assert state is not None
                assert self.reads is not None
                hidden = state[(...,) + (None,) * self.dims]
                reads = iter(
                    (network.attention(self.condition.memory, hidden).flatten(1) @ self.reads).split(2 * planes, 1)
                )
            base = self.base[i][min(t, len(self.base[i]) - 1)]
            z = torch.addmm(base, line[:, t * features : t * features + self.taps[i]], self.kernels[i])
            if reads is not None and layer.read is not None:
                z = z + next(reads)
            gated = self.gates[:, i * planes : (i + 1) * planes]
            torch.mul(torch.tanh(z[:, :planes]), torch.sigmoid(z[:, planes:]), out=gated)
            residual = torch.addmm(self.residual_biases[i], gated, self.residuals[i])
            state = residual if state is None else state + residual
        total = torch.addmm(self.skip_bias, self.gates, self.skips)
        return F.linear(F.relu(total), network.penult.weight.flatten(1), network.penult.bias)

    def _feed(self, inputs: Tensor, place: tuple[int, ...]) -> None:
        """Put the input features ``(batch, features)`` of a finished pixel where each stack will look."""
        for k, buffer in enumerate(self.buffers[0][:-1]):
            index: Any = (slice(None), slice(None), *(t + self.reach for t in place[k:]))
            buffer[index] = inputs
        start = (place[-1] + self.reach) * self.features[0]
        self.lines[0][:, start : start + self.features[0]] = inputs


def _at(bias: Tensor, prefix: tuple[int, ...]) -> Tensor:
    """The slice at ``prefix`` of a bias ``(tasks, features, *space or ones)``."""
    for k, index in enumerate(prefix):
        if bias.shape[2 + k] > 1:
            bias = bias.narrow(2 + k, index, 1)
    return bias
