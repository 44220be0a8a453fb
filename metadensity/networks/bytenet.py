"""The ByteNet decoder as an autoregressive network, and its encoder for supports."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.likelihoods import build_likelihood
from metadensity.networks.causal import CausalNetwork
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.config import ByteNetConfig
from metadensity.nn.attention import SupportAttention
from metadensity.nn.dropout import Dropout
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


class MaskedBlocks(nn.Module):
    """Features of the strict past of places in a row: masked residual blocks, conditioned on a support set.

    The first convolution, of ``first_kernel // 2`` places before the current one, holds the embeddings of symbols.
    With attention the features before the middle block are the queries; the blocks from there on are given what is
    read.
    """

    def __init__(self, symbol_features: int, sizes: ByteNetConfig, layers: int, attention: str | None) -> None:
        super().__init__()
        planes = sizes.planes
        self.attention_layer = layers // 2
        self.first = SequenceConv(symbol_features, 2 * planes, (sizes.first_kernel or sizes.kernel_size) // 2)
        self.layers = nn.ModuleList(
            BLOCKS[sizes.block](
                planes,
                sizes.kernel_size // 2 + 1,
                sizes.dilations[i % len(sizes.dilations)],
                context=sizes.context,
                attended=planes if attention and i >= self.attention_layer else 0,
                dropout=sizes.dropout,
            )
            for i in range(layers)
        )
        self.attention = SupportAttention(2 * planes, planes, planes, 1, attention) if attention is not None else None
        self.norm = nn.LayerNorm(2 * planes)
        self.dropout = Dropout(sizes.dropout)
        self.penult = nn.Linear(2 * planes, sizes.penultimate)

    def conditioning(self, tasks: int, vector: Tensor, columns: tuple[Tensor, Tensor] | None = None) -> Conditioning:
        """Prepare a batch of tasks from task vectors ``(tasks, context)`` and keys and values of support columns."""
        biases = [cast(ResidualBlock, block).biases(vector) for block in self.layers]
        memory = self.attention.with_null_entry(*columns) if self.attention is not None and columns else None
        return Conditioning(tasks, biases, memory)

    def features_after(
        self, before: Tensor, condition: Conditioning, rings: Rings | None = None, columns: Tensor | None = None
    ) -> Tensor:
        """Features ``(batch, places, penultimate)`` from the input of the place before each, zeros before the first.

        rings: of one more place, given those before it. columns: what else is known at each place, ``(batch, places,
        2 * planes)``, which is added to what the first convolution gives.
        """
        x = self._before_attention(before, condition, rings, columns)
        attended = None
        if self.attention is not None and condition.memory is not None:
            attended = self.attention(condition.memory, x.mT).mT
        x = self._blocks(slice(self.attention_layer, None), x, condition, attended, rings)
        return self.penult(self.dropout(F.relu(self.norm(x))))

    def _before_attention(
        self, before: Tensor, condition: Conditioning, rings: Rings | None = None, columns: Tensor | None = None
    ) -> Tensor:
        x = self.first(before, rings)
        x = x if columns is None else x + columns
        return self._blocks(slice(0, self.attention_layer), x, condition, None, rings)

    def _blocks(
        self, which: slice, x: Tensor, condition: Conditioning, attended: Tensor | None, rings: Rings | None
    ) -> Tensor:
        for block, biases in zip(self.layers[which], condition.biases[which], strict=True):
            x = block(x, biases, attended, rings)
        return x

    def weights_after(self, before: Tensor, condition: Conditioning, columns: Tensor | None = None) -> Tensor:
        """Where places look, ``(samples, tasks, J, places)``; arguments as of ``features_after``.

        Raises ValueError without attention.
        """
        if self.attention is None or condition.memory is None:
            raise ValueError("This network has no attention; build the model with attention='dot'.")
        return self.attention.weights(condition.memory, self._before_attention(before, condition, columns=columns).mT)


class SymbolNetwork(CausalNetwork):
    """A network over symbols in raster order that can also be asked for one place after another."""

    input: SymbolInput

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.input.one_hot.device

    @abstractmethod
    def steps(self, condition: Conditioning) -> Callable[[Tensor, int], Tensor]:
        """A function that gives the features ``(batch, penultimate)`` of one place after another, from the first on.

        It is given pixels ``(batch, C, places)``, of which those before the place are known, and its number.
        """


class ByteNetDecoder(MaskedBlocks, SymbolNetwork):
    """``MaskedBlocks`` over the places in raster order, and a likelihood. Sizes: ``ByteNetConfig``."""

    def __init__(self, event_shape: Sequence[int], levels: int, sizes: ByteNetConfig) -> None:
        symbols = SymbolInput(event_shape, levels)
        super().__init__(symbols.features, sizes, sizes.layers, sizes.attention)
        self.event_shape, self.levels = tuple(event_shape), levels
        self.input = symbols
        self.head = build_likelihood(
            sizes.likelihood,
            sizes.penultimate,
            event_shape[0],
            levels,
            len(event_shape) - 1,
            components=sizes.components,
        )

    def features(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """See ``CausalNetwork``."""
        before = F.pad(self.input(pixels), [0, 0, 1, -1])
        return self.features_after(before, condition).mT.unflatten(-1, self.event_shape[1:])

    def steps(self, condition: Conditioning) -> Callable[[Tensor, int], Tensor]:
        """See ``SymbolNetwork``: every convolution keeps a ring of the places that it looks back at."""
        rings = Rings(self)

        def features(pixels: Tensor, place: int) -> Tensor:
            return self.features_after(symbol_before(self.input, pixels, place), condition, rings)[:, 0]

        return features

    def attention_weights(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """See ``CausalNetwork``."""
        before = F.pad(self.input(pixels), [0, 0, 1, -1])
        return self.weights_after(before, condition).unflatten(-1, self.event_shape[1:])


def symbol_before(symbols: SymbolInput, pixels: Tensor, place: int) -> Tensor:
    """The input ``(batch, 1, features)`` of the place before ``place`` of ``(batch, C, places)``; zeros at first."""
    here = symbols(pixels[..., max(0, place - 1)].unsqueeze(-1))
    return here if place else torch.zeros_like(here)


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
            ReluBlock(planes, ENCODER_TAPS, dilations[i % len(dilations)], masked=False, dropout=sizes.dropout)
            for i in range(sizes.encoder_layers)
        )
        self.norm = nn.LayerNorm(2 * planes)
        self.project = nn.Linear(2 * planes, sizes.context)
        self.to_columns = nn.Linear(2 * planes, 2 * planes) if sizes.attention else None
        self.null = nn.Parameter(torch.zeros(sizes.context))

    def embedded(self, supports: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the blocks are given of ``(batch, C, *space)``: ``(batch, places, 2 * planes)``.

        Also which places are real, ``(batch, places, 1)``, as 0 or 1; None: all.
        """
        return self.embed(self.input(supports)), None

    def forward(self, support: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Task vectors ``(tasks, context)``; keys and values ``(tasks, S * places, planes)`` each, or None."""
        shots, tasks = support.shape[:2]
        if not shots:
            empty = self.null.new_zeros(tasks, 0, self.norm.normalized_shape[0] // 2)
            return self.null.expand(tasks, -1), (empty, empty) if self.to_columns is not None else None
        x, real = self.embedded(support.flatten(0, 1))
        for block in self.layers:
            x = block(x, [], real=real)
        x = self.norm(x)
        mean = x.mean(1) if real is None else (x * real).sum(1) / real.sum(1).clamp(min=1)
        vectors = VECTOR_SCALE * rms_bounded(self.project(mean))
        vector = (vectors.unflatten(0, (shots, tasks)).sum(0) + self.null) / (shots + 1)
        if self.to_columns is None:
            return vector, None
        columns = self.to_columns(x).unflatten(0, (shots, tasks)).transpose(0, 1).flatten(1, 2)
        keys, values = columns.chunk(2, -1)
        return vector, (keys, values)
