"""The networks of PixelRNN: Row LSTM and Diagonal BiLSTM, conditioned on a support, to logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.likelihoods import build_likelihood
from metadensity.networks.causal import CausalNetwork
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.config import PixelRNNConfig
from metadensity.nn.attention import SupportAttention
from metadensity.nn.causal import CausalConv
from metadensity.nn.convolution import CONV, is_plain, pointwise
from metadensity.nn.inputs import PixelInput
from metadensity.nn.recurrent import RecurrentLayer


class PixelRNN(CausalNetwork):
    """Layers of LSTM cells over ``(C, *space)`` images; the rows of a volume stand one after another.

    The first layer is a convolution of what lies above and to the left. With attention what the middle layer is given
    are the queries, and what is read joins the inputs of the layers from there on.

    layer: makes a layer of rows and columns, planes, skip, context and attended. sizes: those of the model. beyond:
    columns to the right of an image of several rows. What a place sees of the row above from the right begins there:
    one such column has seen the last pixel of its row, which no place of the image itself has, as none sees itself.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        layer: Callable[..., RecurrentLayer],
        sizes: PixelRNNConfig,
        beyond: int = 0,
    ) -> None:
        super().__init__()
        planes, penultimate, context, attention = sizes.planes, sizes.penultimate, sizes.context, sizes.attention
        self.event_shape, self.levels = tuple(event_shape), levels
        rows = math.prod(event_shape[1:-1])
        self.beyond = beyond if rows > 1 else 0
        self.space = rows, event_shape[-1] + self.beyond
        space_dims, self.planes, self.penultimate = len(event_shape) - 1, planes, penultimate
        self.attention_layer = sizes.layers // 2
        self.input = PixelInput(event_shape, levels)
        self.first = nn.ModuleList(
            CausalConv(self.input.features, 2 * planes, 2, stack, sizes.first_kernel or 3, excludes_current=True)
            for stack in ((0, 1) if self.space[0] > 1 else (1,))
        )
        self.layers = nn.ModuleList(
            layer(self.space, planes, penultimate, context, planes if attention and i >= self.attention_layer else 0)
            for i in range(sizes.layers)
        )
        self.attention = SupportAttention(2 * planes, planes, planes, space_dims, attention) if attention else None
        self.penult = pointwise(penultimate, penultimate, space_dims)
        self.head = build_likelihood(
            sizes.likelihood, penultimate, event_shape[0], levels, space_dims, components=sizes.components
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.input.positions.device

    @property
    def is_plain(self) -> bool:
        """Whether the weights of what runs once a pixel say all that it does, so that a sampler may go by them."""
        return (
            is_plain(self.input, PixelInput)
            and all(is_plain(conv, CausalConv) for conv in self.first)
            and all(cast(RecurrentLayer, layer).is_plain for layer in self.layers)
            and is_plain(self.penult, CONV[len(self.event_shape) - 1])
        )

    def conditioning(self, tasks: int, vector: Tensor, patches: tuple[Tensor, Tensor] | None = None) -> Conditioning:
        """Prepare a batch of tasks from task vectors ``(tasks, context)`` and patch keys and values."""
        biases = [cast(RecurrentLayer, layer).biases(vector) for layer in self.layers]
        memory = (
            self.attention.with_null_entry(*patches) if self.attention is not None and patches is not None else None
        )
        return Conditioning(tasks, biases, memory)

    def features(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """See ``CausalNetwork``."""
        x = self._first(pixels)
        attended: Tensor | None = None
        skip_sum: Tensor | None = None
        for i, layer in enumerate(self.layers):
            if i == self.attention_layer and self.attention is not None and condition.memory is not None:
                read = self.attention(condition.memory, self._as_images(x, beyond=self.beyond))
                attended = read.flatten(2).permute(2, 0, 1)
            x, skip_sum = layer(x, condition.biases[i], attended, skip_sum)
        assert skip_sum is not None
        return cast(Tensor, self.penult(F.relu(self._as_images(skip_sum))))

    def _first(self, pixels: Tensor) -> Tensor:
        """``(places, batch, 2 * planes)`` of what lies before each place."""
        rows = F.pad(self.input(pixels), [0, self.beyond]).flatten(2).unflatten(2, self.space)
        return sum(conv(rows) for conv in self.first).flatten(2).permute(2, 0, 1).contiguous()

    def _as_images(self, x: Tensor, beyond: int = 0) -> Tensor:
        """``(batch, features, *space)``, with so many of the columns beyond."""
        *space, width = self.event_shape[1:]
        return x.permute(1, 2, 0).unflatten(2, (*space, self.space[1]))[..., : width + beyond]

    def attention_weights(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """See ``CausalNetwork``."""
        if self.attention is None or condition.memory is None:
            raise ValueError("This network has no attention; build the model with attention='dot'.")
        x = self._first(pixels)
        for layer, biases in list(zip(self.layers, condition.biases, strict=True))[: self.attention_layer]:
            x, _ = layer(x, biases)
        return self.attention.weights(condition.memory, self._as_images(x))
