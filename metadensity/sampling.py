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
    """

    def __init__(self, network: PixelCNN, condition: Condition, batch: int) -> None:
        self.network, self.condition, self.batch = network, condition, batch
        self.layers: list[GatedLayer] = list(network.layers)  # type: ignore[arg-type]
        self.channels, *self.space = network.event_shape
        self.dims = network.dims
        self.buffers = [[self._buffer(layer.conv(k)) for k in range(self.dims)] for layer in self.layers]
        self.links: list[list[Tensor | None]] = [[None] * self.dims for _ in self.layers]

    def _buffer(self, conv: CausalConv) -> Tensor:
        """Zeros ``(batch, in, n_k + reach, n_j + 2 * reach for j > k)``."""
        k, reach = conv.stack, conv.reach
        padded = [self.space[k] + reach] + [size + 2 * reach for size in self.space[k + 1 :]]
        return conv.weight.new_zeros(self.batch, conv.weight.shape[1], *padded)

    def run(self, uniforms: Tensor) -> Tensor:
        """Draw all pixels in raster order."""
        pixels = torch.zeros(uniforms.shape, dtype=torch.long, device=uniforms.device)
        for place in itertools.product(*map(range, self.space)):
            for k in range(self.dims):
                if not any(place[k + 1 :]):  # a new slice of stack k begins here
                    features = self._advance(k, place[: k + 1])
            here: Any = (slice(None), slice(None), *(slice(t, t + 1) for t in place))
            for channel in range(self.channels):
                logits = self.network.head(features, pixels[here])[:, :, channel].flatten(1)
                index: Any = (slice(None), channel, *place)
                pixels[index] = invert_cdf(logits, uniforms[index])
            self._feed(self.network.input(pixels, here), place)
        return pixels

    def _advance(self, k: int, prefix: tuple[int, ...]) -> Tensor | None:
        """Compute stack k in all layers on the slice at ``prefix``. Returns the features of the place (last stack).

        The state of a slice has shape ``(batch, features, 1 for each dimension up to k, *space[k + 1:])``.
        """
        network, last = self.network, k == self.dims - 1
        state, total, read = None, None, None
        for i, layer in enumerate(self.layers):
            conv, buffer = layer.conv(k), self.buffers[i][k]
            if state is not None:
                inner = [slice(conv.reach, -conv.reach)] * (self.dims - k - 1)
                target = buffer.select(2, prefix[k] + conv.reach)[(slice(None), slice(None), *inner)]
                target.copy_(state.view(target.shape))
            window = buffer.narrow(2, prefix[k], conv.taps)
            z = conv.convolve(window.view(*window.shape[:2], *[1] * k, *window.shape[2:]))
            link = self.links[i][k]
            if link is not None:
                z = z + link.narrow(2 + k, prefix[k], 1)
            if self.condition.biases[i]:
                z = add_per_task(z, _at(self.condition.biases[i][k], prefix))
            if not last:
                self.links[i][k + 1] = layer.links[k](z)
                state = gate(z) + state if state is not None else gate(z)
                continue
            if i == network.middle and network.attention is not None and self.condition.memory is not None:
                read = network.attention(self.condition.memory, state)
            if layer.read is not None and read is not None:
                z = z + layer.read(read)
            residual, skip = layer.outputs(z)
            state = state + residual if state is not None else residual
            total = skip if total is None else total + skip
        return network.penult(F.relu(total)) if total is not None else None

    def _feed(self, inputs: Tensor, place: tuple[int, ...]) -> None:
        """Put the input features ``(batch, features, 1, ...)`` of a finished pixel where each stack will look."""
        for k, buffer in enumerate(self.buffers[0]):
            reach = self.layers[0].conv(k).reach
            index: Any = (slice(None), slice(None), *(t + reach for t in place[k:]))
            buffer[index] = inputs.flatten(1)


def _at(bias: Tensor, prefix: tuple[int, ...]) -> Tensor:
    """The slice at ``prefix`` of a bias ``(tasks, features, *space or ones)``."""
    for k, index in enumerate(prefix):
        if bias.shape[2 + k] > 1:
            bias = bias.narrow(2 + k, index, 1)
    return bias
