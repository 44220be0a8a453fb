"""The gated PixelCNN network: causal features of an image, conditioned on a support, to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.likelihoods import Likelihood, build_likelihood
from metadensity.networks.causal import CausalNetwork
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.config import PixelCNNConfig
from metadensity.nn.attention import SupportAttention
from metadensity.nn.causal import GatedLayer, gated_layers
from metadensity.nn.convolution import CONV, is_plain, pointwise
from metadensity.nn.inputs import PixelInput
from metadensity.nn.prototypes import Prototypes


class PixelCNN(CausalNetwork):
    """A gated PixelCNN over ``(C, *space)`` images in one, two or three space dimensions.

    context: features of the task vector that biases every gate (0: none).
    attention: None, "additive" or "dot". With attention, the activations of the middle layer's last
        stack are the queries, and what is read conditions the second half of the layers. Only the last
        stack receives it: a read at t depends on all pixels before t, and the stacks before the last are
        seen by pixels that come earlier than some of those.
    placed: whether a place is given its position, see ``PixelInput``. input, head: in place of its own.
    prototypes: learned images that the past is compared with, see ``Prototypes``; what a place gets from them joins
        the skip outputs of the layers. 0: none.
    The others are those of ``PixelCNNConfig``.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        context: int = 0,
        attention: str | None = None,
        prototypes: int = 0,
        placed: bool = True,
        input: PixelInput | None = None,
        head: Likelihood | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__()
        config = PixelCNNConfig(**sizes)
        planes, penultimate, kernel_size = config.planes, config.penultimate, config.kernel_size
        space_dims = len(event_shape) - 1
        self.event_shape, self.levels, self.space_dims = tuple(event_shape), levels, space_dims
        self.planes, self.penultimate = planes, penultimate
        self.frame_independent = config.frame_independent and space_dims > 1  # a frame of a sequence is a place
        if self.frame_independent and prototypes:
            raise ValueError(
                f"prototypes={prototypes} with frame_independent=True; prototypes are compared with the pixels of a "
                "place's own frame as well. Give prototypes=0."
            )
        self.attention_layer = config.layers // 2
        self.input = PixelInput(event_shape, levels, placed) if input is None else input
        self.layers = nn.ModuleList(
            GatedLayer(
                self.input.features if i == 0 else planes,
                planes,
                penultimate,
                space_dims,
                kernel_size if i or config.first_kernel is None else config.first_kernel,
                excludes_current=i == 0,
                context=context,
                attended=planes if attention and i >= self.attention_layer else 0,
                dilation=config.dilations[(i - 1) % len(config.dilations)] if i else 1,
                stacks=self.stacks,
            )
            for i in range(config.layers)
        )
        self.attention = SupportAttention(planes, planes, planes, space_dims, attention) if attention else None
        self.prototypes = (
            Prototypes(event_shape, levels, prototypes, penultimate, context=context) if prototypes else None
        )
        self.penult = pointwise(penultimate, penultimate, space_dims)
        self.head = head or build_likelihood(
            config.likelihood, penultimate, event_shape[0], levels, space_dims, components=config.components
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.input.positions.device

    @property
    def stacks(self) -> int:
        """Stacks of features, see ``metadensity.nn.causal``."""
        return 1 if self.frame_independent else self.space_dims

    @property
    def is_plain(self) -> bool:
        """Whether the weights of what runs once a pixel say all that it does, so that a sampler may go by them."""
        return (
            is_plain(self.input, PixelInput)
            and all(cast(GatedLayer, layer).is_plain for layer in self.layers)
            and is_plain(self.penult, CONV[self.space_dims])
        )

    def conditioning(
        self, tasks: int, vector: Tensor | None = None, patches: tuple[Tensor, Tensor] | None = None
    ) -> Conditioning:
        """Prepare a batch of tasks from task vectors ``(tasks, context)`` and patch keys and values."""
        biases = [cast(GatedLayer, layer).biases(vector) if vector is not None else [] for layer in self.layers]
        memory = (
            self.attention.with_null_entry(*patches) if self.attention is not None and patches is not None else None
        )
        prior = self.prototypes.logits_before(tasks, vector) if self.prototypes is not None else None
        return Conditioning(tasks, biases, memory, prior)

    def inputs(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """What the first layer is given of ``pixels``, ``(batch, features, *space)``."""
        return cast(Tensor, self.input(pixels))

    def features(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """Features ``(batch, penultimate, *space)`` of the strict past of every place.

        pixels: ``(samples * tasks, C, *space)`` integers, tasks fastest.
        """
        return self.features_of(self.inputs(pixels, condition), pixels, condition)

    def features_of(self, inputs: Tensor, pixels: Tensor, condition: Conditioning) -> Tensor:
        """``features``, once ``inputs`` of these pixels are known."""
        stacks = [inputs] * self.stacks
        layers, biases, middle = [*self.layers], condition.biases, self.attention_layer
        attended: Tensor | None = None
        skip_sum: Tensor | None = None
        if self.attention is not None and condition.memory is not None:
            stacks, skip_sum = gated_layers(layers[:middle], stacks, biases[:middle])
            attended = self.attention(condition.memory, stacks[-1])
            layers, biases = layers[middle:], biases[middle:]
        stacks, skip_sum = gated_layers(layers, stacks, biases, attended, skip_sum)
        if self.prototypes is not None and condition.prototype_logits is not None:
            skip_sum = skip_sum + self.prototypes(pixels, condition.prototype_logits)
        return cast(Tensor, self.penult(F.relu(skip_sum)))

    def attention_weights(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """Where each place looks, ``(samples, tasks, J, *space)``: patches of all supports in order, the null last.

        Raises ValueError for a network without attention.
        """
        if self.attention is None or condition.memory is None:
            raise ValueError("This network has no attention; attention maps need a model such as AttentionPixelCNN.")
        stacks = [self.inputs(pixels, condition)] * self.stacks
        for layer, biases in list(zip(self.layers, condition.biases, strict=True))[: self.attention_layer]:
            stacks, _ = layer(stacks, biases)
        return self.attention.weights(condition.memory, stacks[-1])
