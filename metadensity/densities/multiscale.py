"""The density of a small image and of what each doubling fills in."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.density import SequentialDensity
from metadensity.drawing import Draws
from metadensity.networks.captured import CapturedTensors
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.upscaler import Upscaler, strided_index


class MultiscaleDensity(SequentialDensity):
    """p(x) = p(base) prod_scales prod_groups p(group | groups before it, the smaller image).

    The image of a smaller scale is every second pixel of the next. In d dimensions a scale adds 2^d - 1 groups, whose
    pixels are independent of one another given what is known, so an image of N pixels takes the base, whose size is
    fixed, and (2^d - 1) log2(side / base side) network passes more to draw; to score it, as many.

    base: the density of the smallest image. upscalers: a network and its condition for each scale, smallest first.
    """

    order: ClassVar[str] = (
        "the order of a multiscale image (not the raster's: every so many-th pixel makes a small image, which comes "
        "first, then the pixels between, a group at a time)"
    )

    def __init__(
        self,
        base: PixelCNNDensity,
        upscalers: Sequence[tuple[Upscaler, Conditioning]],
        event_shape: Sequence[int],
        levels: int,
        validate_args: bool | None = None,
    ) -> None:
        self.base, self.upscalers = base, list(upscalers)
        self.captured = CapturedTensors(*(network for network, _ in self.upscalers))
        super().__init__(base.tasks, event_shape, levels, validate_args)

    @property
    def generation_order(self) -> Tensor:
        """The base in raster order, then a step a group; see ``SequentialDensity.generation_order``."""
        space = self.event_shape[1:]
        steps = torch.zeros(space, dtype=torch.int64)
        first = steps[self._base_index]
        first.copy_(torch.arange(first.numel()).view(first.shape))
        step = first.numel()
        for stride, upscaler, _ in self._scales():
            for group in upscaler.groups:
                steps[_within(upscaler, group, stride)] = step
                step += 1
        return steps

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        pixels = value.reshape(-1, *self.event_shape)
        if not len(pixels):
            return torch.zeros(value.shape, device=value.device)
        small = pixels[self._base_index]
        known = self.base.conditional_log_probs(small.unflatten(0, (-1, self.tasks))).flatten(0, 1)
        terms = known.new_zeros(pixels.shape)
        terms[self._base_index] = known
        for stride, upscaler, condition in self._scales():
            image = pixels[strided_index([0] * upscaler.space_dims, stride)]
            for group in upscaler.groups:
                target = image[strided_index(upscaler.offsets[group])]
                with self.captured.restored():
                    found = upscaler.head.log_prob(upscaler.features(image, group, condition), target)
                terms[_within(upscaler, group, stride)] = found
        return terms.view(value.shape)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.base.device

    @property
    def has_attention(self) -> bool:
        """See ``SequentialDensity.has_attention``."""
        return self.base.has_attention

    def attention_weights(self, value: Tensor) -> Tensor:
        """Each place in the network that generates it; see ``SequentialDensity.attention_weights``."""
        self.check_value(value)
        small = self.base.attention_weights(value[self._base_index])
        weights = small.new_zeros(*small.shape[: 1 - len(self.event_shape)], *self.event_shape[1:])
        weights[self._base_index] = small
        pixels = value.reshape(-1, *self.event_shape)
        for stride, upscaler, condition in self._scales():
            image = pixels[strided_index([0] * upscaler.space_dims, stride)]
            for group in upscaler.groups:
                inside = _within(upscaler, group, stride)
                with self.captured.restored():
                    found = upscaler.attention_weights(image, group, condition)
                weights[inside] = found.view(weights[inside].shape)
        return weights

    def _drawn(self, draws: Draws) -> Tensor:
        """A group at a time."""
        flat = draws.map(lambda part: part.reshape(-1, *self.event_shape))
        pixels = torch.zeros(flat.uniforms.shape, dtype=torch.long, device=flat.uniforms.device)
        of_base = flat.map(lambda part: part[self._base_index].unflatten(0, (-1, self.tasks)))
        pixels[self._base_index] = self.base.drawn(of_base).flatten(0, 1)
        for stride, upscaler, condition in self._scales():
            # A view: what is drawn is written into the image.
            image = pixels[strided_index([0] * upscaler.space_dims, stride)]
            for group in upscaler.groups:
                of_group = flat.map(operator.itemgetter(_within(upscaler, group, stride)))
                with self.captured.restored():
                    drawn = _draw(upscaler, upscaler.features(image, group, condition), of_group)
                image[strided_index(upscaler.offsets[group])] = drawn
        return pixels.view(draws.uniforms.shape)

    @property
    def _base_index(self) -> Any:
        return strided_index([0] * (len(self.event_shape) - 1), 2 ** len(self.upscalers))

    def _scales(self) -> list[tuple[int, Upscaler, Conditioning]]:
        """The stride of each scale's image in the whole one, with its network and condition, smallest image first."""
        count = len(self.upscalers)
        return [(2 ** (count - 1 - i), *given) for i, given in enumerate(self.upscalers)]


def _within(upscaler: Upscaler, group: int, stride: int) -> Any:
    """The index in the whole image of a group of the scale whose image has this stride."""
    return strided_index([first * stride for first in upscaler.offsets[group]], 2 * stride)


def _draw(upscaler: Upscaler, features: Tensor, draws: Draws) -> Tensor:
    """All pixels of a group at once, channel by channel, ``(batch, C, *space)``."""
    batch, channels, *space = draws.uniforms.shape
    places = _rows(features)
    rows = draws.map(_rows)
    pixels = torch.zeros(rows.uniforms.shape, dtype=torch.long, device=places.device)
    for channel in range(channels):
        logits = upscaler.head.logits_at(places, pixels, channel)
        pixels[:, channel] = rows.map(operator.itemgetter((slice(None), channel))).levels(logits)
    return pixels.view(batch, -1, channels).transpose(1, 2).reshape(batch, channels, *space)


def _rows(part: Tensor) -> Tensor:
    """``(batch, features, *space)`` as a row a place, ``(batch * places, features)``."""
    return part.flatten(2).transpose(1, 2).flatten(0, 1)
