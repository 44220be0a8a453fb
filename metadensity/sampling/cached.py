"""Samplers: the naive one, a full network pass a pixel, and its cached twin, in torch or with a native kernel.

All invert the CDF of each pixel at given uniform numbers, so equal numbers give equal images.
"""

from __future__ import annotations

import itertools
import operator
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.drawing import Draws
from metadensity.likelihoods.levels import mixture_logits
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.causal import CausalConv, GatedLayer
from metadensity.nn.functional.gate import gate
from metadensity.nn.functional.gated_layer import add_per_task
from metadensity.nn.inputs import to_unit_range
from metadensity.sampling.last_stack import LastStack
from metadensity.sampling.line_kernel import native_kernel
from metadensity.sampling.naive import sample_by_logits


def sample_cached(network: PixelCNN, condition: Conditioning, draws: Draws, compiled: bool = True) -> Tensor:
    """Sample with nothing computed twice: each stack advances once for each of its slices. See ``sample_naive``.

    compiled: draw the pixels of a line in the native kernel, where there is one and it can (see ``native_kernel``).
    A network with hooks or parts of others in it is called as a whole for each pixel, see ``is_plain``.
    """
    return _sample([(network, condition)], draws, compiled and draws.native)


def sample_ensemble(members: Sequence[tuple[PixelCNN, Conditioning]], draws: Draws) -> Tensor:
    """Sample from the mean of several networks' conditionals, side by side in torch. See ``sample_cached``."""
    return _sample(members, draws, compiled=False)


def _sample(members: Sequence[tuple[PixelCNN, Conditioning]], draws: Draws, compiled: bool) -> Tensor:
    independent = {network.frame_independent for network, _ in members}
    if independent == {False} and all(network.is_plain for network, _ in members):
        batch = len(draws.uniforms)
        return _run([CachedSampler(network, condition, batch, compiled) for network, condition in members], draws)

    def logits(pixels: Tensor) -> Tensor:
        return mixture_logits([network(pixels, condition) for network, condition in members], 1)

    return sample_by_logits(logits, draws, 1 if independent == {True} else None)


def _run(samplers: Sequence[CachedSampler], draws: Draws) -> Tensor:
    """Draw all pixels in raster order, each from the mean of the samplers' conditionals."""
    pixels = torch.zeros(draws.uniforms.shape, dtype=torch.long, device=draws.uniforms.device)
    kernel, positions = samplers[0].kernel, samplers[0].network.input.positions
    with torch.inference_mode():
        for prefix in itertools.product(*map(range, samplers[0].space[:-1])):
            for sampler in samplers:
                sampler.begin_line(prefix)
            line: Any = (slice(None), slice(None), *prefix)
            here = draws.map(operator.itemgetter(line))
            if kernel is not None:
                where, temperature = positions[line[1:]], here.temperature
                pixels[line] = kernel.draw(samplers[0].base, where, here.uniforms, here.known, temperature)
                here.decided()
            else:
                _draw_line(samplers, pixels[line], prefix, here)
            for sampler in samplers:
                sampler.end_line(pixels, prefix)
    return pixels


def _draw_line(samplers: Sequence[CachedSampler], pixels: Tensor, prefix: tuple[int, ...], draws: Draws) -> None:
    """Draw into ``pixels``, a view ``(batch, C, places)`` of the line."""
    channels, places = pixels.shape[1:]
    for t in range(places):
        here, features = pixels[..., t], [sampler.step(prefix, t) for sampler in samplers]
        for channel in range(channels):
            heads = zip(samplers, features, strict=True)
            logits = mixture_logits(
                [sampler.network.head.logits_at(seen, here, channel) for sampler, seen in heads], -1
            )
            here[:, channel] = draws.map(operator.itemgetter((slice(None), channel, t))).levels(logits)
        for sampler in samplers:
            sampler.take(here, prefix, t)


class CachedSampler:
    """State of one sampling run.

    Stack k is computed a slice at a time, as soon as the pixels before the slice are known: in two
    dimensions the vertical stack once a row, the horizontal one once a pixel. Each convolution keeps
    the padded slice of its inputs; only places already visited are ever read from it.

    The last stack, which runs once a pixel, works on matrices ``(batch, features)``: its buffers are
    flat, ``(batch, places * features)``, so that a window is a view; what does not depend on the pixel
    (biases and the links from the stack before) is added up once a line; and the skip outputs of all
    layers are one product at the end. Of a dilated network a layer keeps a ring of the places that its kernel spans, so
    that neither time a place nor memory grows with the line. Or a native kernel draws a whole line.
    """

    def __init__(self, network: PixelCNN, condition: Conditioning, batch: int, compiled: bool) -> None:
        self.network, self.condition, self.batch = network, condition, batch
        self.layers: list[GatedLayer] = list(network.layers)  # type: ignore[arg-type]
        self.channels, *self.space = network.event_shape
        self.space_dims, self.planes, self.attention_layer = network.space_dims, network.planes, network.attention_layer
        self.buffers = [[self._buffer(layer.conv(k)) for k in range(self.space_dims - 1)] for layer in self.layers]
        self.before: list[list[Tensor | None]] = [[None] * self.space_dims for _ in self.layers]
        self.base: list[Tensor] = []
        self.last = last = LastStack.of(network)
        self.gates = last.skips.new_empty(batch, len(self.layers) * self.planes)
        width = self.space[-1] + last.reach
        pairs = list(zip(last.features, last.kept, strict=True))
        self.lines = [last.skips.new_zeros(batch, 0 if kept else width * features) for features, kept in pairs]
        self.empty = [last.skips.new_zeros(batch, features) for features in last.features]
        self.rings: list[deque[Tensor]] = [deque() for _ in pairs]
        self.prototypes = network.prototypes
        prior = (
            last.skips.new_zeros(condition.tasks, 0)
            if condition.prototype_logits is None
            else condition.prototype_logits
        )
        self.scores = prior.repeat(batch // condition.tasks, 1)  # of the prototypes, for the next place
        self.kernel = native_kernel(network, condition, last, batch) if compiled else None

    def _buffer(self, conv: CausalConv) -> Tensor:
        """Zeros ``(batch, in, n_k + reach_k, n_j + 2 * reach_j for j > k)``."""
        k, sides = conv.stack, zip(self.space, conv.reaches, strict=True)
        padded = [self.space[k] + conv.reach] + [size + 2 * reach for size, reach in list(sides)[k + 1 :]]
        return conv.weight.new_zeros(self.batch, conv.weight.shape[1], *padded)

    def begin_line(self, prefix: tuple[int, ...]) -> None:
        """Compute all that the line at ``prefix`` needs of the pixels before it."""
        for k in range(self.space_dims - 1):
            if not any(prefix[k + 1 :]):  # a new slice of stack k begins here
                self._advance(k, prefix[: k + 1])
        self._add_up(prefix)
        self.rings = [deque([empty] * kept, kept) for empty, kept in zip(self.empty, self.last.kept, strict=True)]

    def take(self, here: Tensor, prefix: tuple[int, ...], t: int) -> None:
        """Put the pixels ``(batch, C)`` at place ``t`` of the line where the last stack will look."""
        encode = self.network.input
        where = encode.positions[cast(Any, (slice(None), *prefix, t))]
        scaled = to_unit_range(here, encode.levels, where.dtype)
        self.put(0, t, torch.cat([scaled, where.expand(len(here), -1)], 1))
        if self.prototypes is not None:
            self.scores = self.scores + self.prototypes.scores(here, (*prefix, t))

    def end_line(self, pixels: Tensor, prefix: tuple[int, ...]) -> None:
        """Put the finished line where the other stacks will look."""
        for k in range(self.space_dims - 1):
            self._feed(k, pixels, prefix)

    def _advance(self, k: int, prefix: tuple[int, ...]) -> None:
        """Compute stack k, not the last, in all layers on the slice at ``prefix``.

        The state of a slice has shape ``(batch, features, 1 for each dimension up to k, *space[k + 1:])``.
        """
        state = None
        for i, layer in enumerate(self.layers):
            conv, buffer = layer.conv(k), self.buffers[i][k]
            if state is not None:
                sides = list(zip(self.space, conv.reaches, strict=True))[k + 1 :]
                inner = [slice(reach, reach + size) for size, reach in sides]
                target = buffer.select(2, prefix[k] + conv.reach)[(slice(None), slice(None), *inner)]
                target.copy_(state.view(target.shape))
            window = buffer[:, :, conv.taps_from(prefix[k])]
            z = conv.convolve(window.view(*window.shape[:2], *[1] * k, *window.shape[2:]))
            before = self.before[i][k]
            if before is not None:
                z = z + before.narrow(2 + k, prefix[k], 1)
            if self.condition.biases[i]:
                z = add_per_task(z, _at(self.condition.biases[i][k], prefix))
            self.before[i][k + 1] = layer.links[k](z)
            state = gate(z) + state if state is not None else gate(z)

    def _add_up(self, prefix: tuple[int, ...]) -> None:
        """All that the last stack adds to its gates on the line at ``prefix``: ``(places or 1, batch, 2 * planes)``."""
        k = self.space_dims - 1
        self.base = []
        for i, layer in enumerate(self.layers):
            bias = layer.conv(k).bias
            preactivation = bias.expand(self.batch, -1)[(...,) + (None,) * self.space_dims]
            before = self.before[i][k]
            if before is not None:
                preactivation = preactivation + before
            if self.condition.biases[i]:
                preactivation = add_per_task(preactivation, _at(self.condition.biases[i][k], prefix))
            self.base.append(preactivation.flatten(2).permute(2, 0, 1).contiguous())

    def step(self, prefix: tuple[int, ...], t: int) -> Tensor:
        """The last stack at place ``t`` of a line, through all layers: features ``(batch, penultimate)``."""
        network, planes, state, reads = self.network, self.planes, None, None
        for i, layer in enumerate(self.layers):
            if state is not None:
                self.put(i, t, state)
            if i == self.attention_layer and network.attention is not None and self.condition.memory is not None:
                assert state is not None
                assert self.last.reads is not None
                hidden = state[(...,) + (None,) * self.space_dims]
                reads = iter(
                    (network.attention(self.condition.memory, hidden).flatten(1) @ self.last.reads).split(2 * planes, 1)
                )
            base = self.base[i][min(t, len(self.base[i]) - 1)]
            z = torch.addmm(base, self._window(i, t), self.last.kernels[i])
            if reads is not None and layer.read is not None:
                z = z + next(reads)
            gated = self.gates[:, i * planes : (i + 1) * planes]
            torch.mul(torch.tanh(z[:, :planes]), torch.sigmoid(z[:, planes:]), out=gated)
            residual = torch.addmm(self.last.residual_biases[i], gated, self.last.residuals[i])
            state = residual if state is None else state + residual
        skip_sum = torch.addmm(self.last.skip_bias, self.gates, self.last.skips)
        if self.prototypes is not None:
            skip_sum = skip_sum + self.prototypes.features_at(self.scores, (*prefix, t))
        return F.linear(F.relu(skip_sum), network.penult.weight.flatten(1), network.penult.bias)

    def put(self, i: int, t: int, inputs: Tensor) -> None:
        """Let layer ``i`` have its inputs ``(batch, features)`` at place ``t`` of the line."""
        if self.last.kept[i]:
            self.rings[i].append(inputs)
        else:
            start = (t + self.last.reach) * self.last.features[i]
            self.lines[i][:, start : start + self.last.features[i]] = inputs

    def _window(self, i: int, t: int) -> Tensor:
        """What the kernel of layer ``i`` looks at from place ``t``, ``(batch, taps)``."""
        if self.last.kept[i]:
            return torch.cat([self.rings[i][j] for j in range(0, self.last.kept[i], self.last.dilations[i])], 1)
        start = (t + self.last.starts[i]) * self.last.features[i]
        return self.lines[i][:, start : start + self.last.taps[i]]

    def _feed(self, k: int, pixels: Tensor, prefix: tuple[int, ...]) -> None:
        """Put the input features of a finished line where stack k, not the last, will look."""
        line: Any = (slice(None), slice(None), *(slice(t, t + 1) for t in prefix), slice(None))
        inputs = self.network.input(pixels, line)
        *before, last = self.layers[0].conv(k).reaches
        places = zip(prefix[k:], before[k:], strict=True)
        inner: Any = (*(t + reach for t, reach in places), slice(last, last + self.space[-1]))
        self.buffers[0][k][(slice(None), slice(None), *inner)] = inputs.view(*inputs.shape[:2], -1)


def _at(bias: Tensor, prefix: tuple[int, ...]) -> Tensor:
    """The slice at ``prefix`` of a bias ``(tasks, features, *space or ones)``."""
    for k, index in enumerate(prefix):
        if bias.shape[2 + k] > 1:
            bias = bias.narrow(2 + k, index, 1)
    return bias
