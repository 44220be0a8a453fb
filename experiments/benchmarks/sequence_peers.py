"""A WaveNet and a ByteNet as they are usually written, the peers of the training step of ours.

float32, contiguous ``(batch, features, places)``, ``nn.Conv1d``, and what comes between a call of torch each. They
compute the same densities as our models of the same sizes and take their weights, so that both can be asserted equal.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.likelihoods.categorical import Categorical
from metadensity.models import ByteNet, WaveNet
from metadensity.networks.bytenet import ByteNetDecoder, ByteNetEncoder
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.causal import GatedLayer
from metadensity.nn.encoders import VECTOR_SCALE, rms_bounded
from metadensity.nn.residual import MultiplicativeBlock, ResidualBlock, SequenceConv


class DilatedConv(nn.Conv1d):
    """A convolution whose output has the places of its input: padded before them, or on both sides."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dilation: int, before: int, after: int = 0) -> None:
        super().__init__(weight.shape[1], weight.shape[0], weight.shape[2], dilation=dilation, bias=bias is not None)
        self.before, self.after = before, after
        with torch.no_grad():
            self.weight.copy_(weight)
            if self.bias is not None and bias is not None:
                self.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, [self.before, self.after]))


def _pointwise(weight: Tensor, bias: Tensor | None) -> DilatedConv:
    """Of a linear layer, or a convolution of one place."""
    return DilatedConv(weight.view(*weight.shape[:2], 1), bias, 1, 0)


class Head(nn.Module):
    """ReLU, 1 x 1, ReLU, 1 x 1 of our categorical likelihood."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        if not isinstance(head, Categorical) or head.channels != 1:
            raise ValueError("The plain nets are categorical, and of one channel.")
        self.hidden = _pointwise(head.hidden.weight, head.hidden.bias)
        self.logits = _pointwise(head.logits.weight, head.logits.bias)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.logits(F.relu(self.hidden(F.relu(x)))))


class WaveNetLayer(nn.Module):
    """A dilated convolution, tanh * sigmoid, a residual and a skip output; a condition inside both gates."""

    def __init__(self, layer: GatedLayer) -> None:
        super().__init__()
        conv, self.residual, self.planes, self.skip = layer.conv(0), layer.residual, layer.planes, layer.skip
        self.shift = int(conv.excludes_current)
        reach = (conv.taps - 1 + self.shift) * conv.dilation
        self.conv = DilatedConv(conv.weight, conv.bias, conv.dilation, reach, -self.shift)
        self.context = copy.deepcopy(layer.contexts[0])
        self.out = _pointwise(layer.out.weight, layer.out.bias)

    def forward(self, x: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        tanh, sigmoid = (self.conv(x) + self.context(vector).unsqueeze(2)).chunk(2, 1)
        onward, skip = self.out(torch.tanh(tanh) * torch.sigmoid(sigmoid)).split([self.planes, self.skip], 1)
        return x + onward if self.residual else onward, skip


class PlainWaveNet(nn.Module):
    """Log-probabilities of sequences given supports, with the sizes and the weights of ``model``.

    Raises ValueError for attention, and other than sequences of one channel with a categorical likelihood.
    """

    def __init__(self, model: WaveNet) -> None:
        super().__init__()
        network: PixelCNN = model.network
        if network.attention is not None or network.space_dims != 1:
            raise ValueError("The plain WaveNet is of sequences, without attention.")
        self.levels = model.levels
        self.encoder = copy.deepcopy(model.encoder)  # convolutions of a stride, written as is usual
        self.layers = nn.ModuleList(WaveNetLayer(cast(GatedLayer, layer)) for layer in network.layers)
        self.penult = _pointwise(network.penult.weight, network.penult.bias)
        self.head = Head(network.head)

    def forward(self, support: Tensor, query: Tensor) -> Tensor:
        """Nats ``(Q, tasks)`` of queries ``(Q, tasks, 1, T)`` given supports ``(S, tasks, 1, T)``."""
        vector = self.encoder(support)[0].repeat(len(query), 1)
        pixels = query.flatten(0, 1)
        x = pixels.float() * (2 / (self.levels - 1)) - 1
        x, total = torch.cat([x, torch.ones_like(x)], 1), torch.zeros(())
        for layer in self.layers:
            x, skip = layer(x, vector)
            total = total + skip
        return _nats(self.head(self.penult(F.relu(total))), query)


def _nats(logits: Tensor, query: Tensor) -> Tensor:
    terms = F.cross_entropy(logits, query.flatten(0, 1).squeeze(1).long(), reduction="none")
    return -terms.sum(1).view(query.shape[:2])


class FeatureNorm(nn.Module):
    """A layer norm over the features of each place."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = copy.deepcopy(norm)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(x.transpose(1, 2)).transpose(1, 2))


def _dilated(conv: SequenceConv) -> DilatedConv:
    weight = conv.linear.weight.unflatten(1, (conv.taps, -1)).transpose(1, 2)
    before = conv.reach if conv.masked else conv.reach // 2
    return DilatedConv(weight, conv.linear.bias, conv.dilation, before, conv.reach - before)


class ByteNetBlock(nn.Module):
    """A residual block of multiplicative units or of ReLU."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.multiplicative = isinstance(block, MultiplicativeBlock)
        self.norm, self.down, self.up = FeatureNorm(block.norm), _linear(block.down), _linear(block.up)
        self.convs = nn.ModuleList(_dilated(cast(SequenceConv, conv)) for conv in block.convs)
        self.norms = nn.ModuleList(FeatureNorm(norm) for norm in getattr(block, "norms", []))
        self.context = copy.deepcopy(block.contexts)
        self.read = None if block.read is None else _linear(block.read)

    def forward(self, x: Tensor, vector: Tensor | None = None, attended: Tensor | None = None) -> Tensor:
        given: Any = 0.0
        if self.context is not None:
            given = self.context(vector).unsqueeze(2)
        if self.read is not None:
            given = given + self.read(attended)
        z = self.down(F.relu(self.norm(x)))
        parts = given.chunk(len(self.convs), 1) if isinstance(given, Tensor) else [given] * len(self.convs)
        for conv, part in zip(self.convs, parts, strict=True):
            if self.multiplicative:
                output, keep, write, update = (conv(z) + part).chunk(4, 1)
                kept = torch.sigmoid(keep) * z + torch.sigmoid(write) * torch.tanh(update)
                z = torch.sigmoid(output) * torch.tanh(kept)
            else:
                z = F.relu(self.norms[1](conv(F.relu(self.norms[0](z))) + part))
        return x + self.up(z)


def _linear(linear: nn.Linear) -> DilatedConv:
    return _pointwise(linear.weight, linear.bias)


class PlainByteNet(nn.Module):
    """As ``PlainWaveNet``, of a ByteNet with attention over the places of its supports. Attention is our own module."""

    def __init__(self, model: ByteNet) -> None:
        super().__init__()
        network: ByteNetDecoder = model.network
        encoder: ByteNetEncoder = model.encoder
        if network.attention is None or encoder.to_columns is None or len(model.event_shape) != 2:
            raise ValueError("The plain ByteNet is of sequences, with attention.")
        self.levels, self.null = model.levels, nn.Parameter(encoder.null.detach().clone())
        self.embed, self.encoder_norm = _linear(encoder.embed), FeatureNorm(encoder.norm)
        self.encoder_layers = nn.ModuleList(ByteNetBlock(cast(ResidualBlock, block)) for block in encoder.layers)
        self.project, self.to_columns = copy.deepcopy(encoder.project), _linear(encoder.to_columns)
        self.first, self.attention = _dilated(network.first), copy.deepcopy(network.attention)
        self.layers = nn.ModuleList(ByteNetBlock(cast(ResidualBlock, block)) for block in network.layers)
        self.attention_layer = network.attention_layer
        self.norm, self.penult = FeatureNorm(network.norm), _linear(network.penult)
        self.head = Head(network.head)

    def forward(self, support: Tensor, query: Tensor) -> Tensor:
        """See ``PlainWaveNet.forward``."""
        vector, memory = self._encode(support)
        vector = vector.repeat(len(query), 1)
        x = self.first(F.pad(self._one_hot(query.flatten(0, 1)), [1, -1]))
        attended = None
        for i, layer in enumerate(self.layers):
            if i == self.attention_layer:
                attended = self.attention(memory, x)
            x = layer(x, vector, attended)
        return _nats(self.head(self.penult(F.relu(self.norm(x)))), query)

    def _one_hot(self, symbols: Tensor) -> Tensor:
        return F.one_hot(symbols.squeeze(1).long(), self.levels).float().transpose(1, 2).contiguous()

    def _encode(self, support: Tensor) -> tuple[Tensor, Any]:
        shots, tasks = support.shape[:2]
        x = self.embed(self._one_hot(support.flatten(0, 1)))
        for layer in self.encoder_layers:
            x = layer(x)
        x = self.encoder_norm(x)
        vectors = (VECTOR_SCALE * rms_bounded(self.project(x.mean(2)))).unflatten(0, (shots, tasks))
        columns = self.to_columns(x).unflatten(0, (shots, tasks)).permute(1, 0, 3, 2).flatten(1, 2)
        vector = (vectors.sum(0) + self.null) / (shots + 1)
        return vector, self.attention.with_null_entry(*columns.chunk(2, -1))
