"""The ByteNet decoder as an autoregressive network, and its encoder for supports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.likelihoods import build_likelihood
from metadensity.networks.causal import CausalNetwork
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.config import ByteNetConfig
from metadensity.nn.attention import SupportAttention
from metadensity.nn.encoders import VECTOR_SCALE, rms_bounded
from metadensity.nn.residual import BLOCKS, ReluBlock, ResidualBlock, Rings, SequenceConv

ENCODER_TAPS = 3  # of the kernels of encoders, which see both sides


class SymbolInput(nn.Module):
    """Symbols as one-hot features, place after place: ``(batch, C, *space)`` to ``(batch, places, C * levels)``."""

    one_hot: Tensor

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__()
        self.features = event_shape[0] * levels
        self.register_buffer("one_hot", torch.eye(levels), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Places in raster order."""
        return self.one_hot[pixels.long().flatten(2)].transpose(1, 2).flatten(2)


class ByteNetDecoder(CausalNetwork):
    """Masked residual blocks over the places in raster order, conditioned on a support set. Sizes: ``ByteNetConfig``.

    The first convolution, of ``first_kernel // 2`` places before the current one, holds the embeddings of symbols.
    With attention the features before the middle block are the queries; the blocks from there on are given what is
    read.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, sizes: ByteNetConfig) -> None:
        super().__init__()
        self.event_shape, self.levels = tuple(event_shape), levels
        planes, space_dims = sizes.planes, len(event_shape) - 1
        self.attention_layer = sizes.layers // 2
        self.input = SymbolInput(event_shape, levels)
        self.first = SequenceConv(self.input.features, 2 * planes, (sizes.first_kernel or sizes.kernel_size) // 2)
        self.layers = nn.ModuleList(
            BLOCKS[sizes.block](
                planes,
                sizes.kernel_size // 2 + 1,
                sizes.dilations[i % len(sizes.dilations)],
                context=sizes.context,
                attended=planes if sizes.attention and i >= self.attention_layer else 0,
            )
            for i in range(sizes.layers)
        )
        self.attention = (
            SupportAttention(2 * planes, planes, planes, 1, sizes.attention) if sizes.attention is not None else None
        )
        self.norm = nn.LayerNorm(2 * planes)
        self.penult = nn.Linear(2 * planes, sizes.penultimate)
        self.head = build_likelihood(
            sizes.likelihood, sizes.penultimate, event_shape[0], levels, space_dims, components=sizes.components
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.input.one_hot.device

    def conditioning(self, tasks: int, vector: Tensor, columns: tuple[Tensor, Tensor] | None = None) -> Conditioning:
        """Prepare a batch of tasks from task vectors ``(tasks, context)`` and keys and values of support columns."""
        biases = [cast(ResidualBlock, block).biases(vector) for block in self.layers]
        memory = self.attention.with_null_entry(*columns) if self.attention is not None and columns else None
        return Conditioning(tasks, biases, memory)

    def features(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """See ``CausalNetwork``."""
        before = F.pad(self.input(pixels), [0, 0, 1, -1])
        return self.features_after(before, condition).mT.unflatten(-1, self.event_shape[1:])

    def features_after(self, before: Tensor, condition: Conditioning, rings: Rings | None = None) -> Tensor:
        """Features ``(batch, places, penultimate)`` from the input of the place before each, zeros before the first.

        rings: of one more place, given those before it.
        """
        x = self._blocks(slice(0, self.attention_layer), self.first(before, rings), condition, None, rings)
        attended = None
        if self.attention is not None and condition.memory is not None:
            attended = self.attention(condition.memory, x.mT).mT
        x = self._blocks(slice(self.attention_layer, None), x, condition, attended, rings)
        return self.penult(F.relu(self.norm(x)))

    def _blocks(
        self, which: slice, x: Tensor, condition: Conditioning, attended: Tensor | None, rings: Rings | None
    ) -> Tensor:
        for block, biases in zip(self.layers[which], condition.biases[which], strict=True):
            x = block(x, biases, attended, rings)
        return x

    def attention_weights(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """See ``CausalNetwork``."""
        if self.attention is None or condition.memory is None:
            raise ValueError("This network has no attention; build the model with attention='dot'.")
        x = self.first(F.pad(self.input(pixels), [0, 0, 1, -1]))
        x = self._blocks(slice(0, self.attention_layer), x, condition, None, None)
        return self.attention.weights(condition.memory, x.mT).unflatten(-1, self.event_shape[1:])


class ByteNetEncoder(nn.Module):
    """Supports ``(S, tasks, C, *space)`` to a vector a task, and to keys and values of all their places.

    Residual blocks as those of the decoder, with ReLU and not masked, over each support by itself. f(s) is the mean
    over supports and a learned null entry, of the mean over places.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, sizes: ByteNetConfig) -> None:
        super().__init__()
        planes, dilations = sizes.planes, sizes.dilations
        self.input = SymbolInput(event_shape, levels)
        self.embed = nn.Linear(self.input.features, 2 * planes)
        self.layers = nn.ModuleList(
            ReluBlock(planes, ENCODER_TAPS, dilations[i % len(dilations)], masked=False)
            for i in range(sizes.encoder_layers)
        )
        self.norm = nn.LayerNorm(2 * planes)
        self.project = nn.Linear(2 * planes, sizes.context)
        self.to_columns = nn.Linear(2 * planes, 2 * planes) if sizes.attention else None
        self.null = nn.Parameter(torch.zeros(sizes.context))

    def forward(self, support: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Task vectors ``(tasks, context)``; keys and values ``(tasks, S * places, planes)`` each, or None."""
        shots, tasks = support.shape[:2]
        if not shots:
            empty = self.null.new_zeros(tasks, 0, self.norm.normalized_shape[0] // 2)
            return self.null.expand(tasks, -1), (empty, empty) if self.to_columns is not None else None
        x = self.embed(self.input(support.flatten(0, 1)))
        for block in self.layers:
            x = block(x, [])
        x = self.norm(x)
        vectors = VECTOR_SCALE * rms_bounded(self.project(x.mean(1)))
        vector = (vectors.unflatten(0, (shots, tasks)).sum(0) + self.null) / (shots + 1)
        if self.to_columns is None:
            return vector, None
        columns = self.to_columns(x).unflatten(0, (shots, tasks)).transpose(0, 1).flatten(1, 2)
        keys, values = columns.chunk(2, -1)
        return vector, (keys, values)
