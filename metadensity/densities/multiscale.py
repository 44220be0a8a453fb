"""The density of a small image and of what each doubling fills in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.density import SequentialDensity
from metadensity.likelihoods.levels import invert_cdf
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

    @torch.no_grad()
    def sample_from_uniforms(
        self, uniforms: Tensor, *, known: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        """See ``SequentialDensity.sample_from_uniforms``; a group at a time."""
        given = self._require_drawable(uniforms, known, temperature)
        pixels = torch.zeros(uniforms.shape, dtype=torch.long, device=uniforms.device)
        if not uniforms.numel():
            return pixels
        flat, chances = (part.reshape(-1, *self.event_shape) for part in (pixels, uniforms))
        held = None if given is None else given.reshape(-1, *self.event_shape)
        first, of_first = (
            None if part is None else part[self._base_index].unflatten(0, (-1, self.tasks)) for part in (chances, held)
        )
        assert first is not None
        small = self.base.sample_from_uniforms(first, known=of_first, temperature=temperature)
        flat[self._base_index] = small.flatten(0, 1)
        for stride, upscaler, condition in self._scales():
            image = flat[
                strided_index([0] * upscaler.space_dims, stride)
            ]  # a view: what is drawn is written into the image
            for group in upscaler.groups:
                whole = _within(upscaler, group, stride)
                of_group = None if held is None else held[whole]
                with self.captured.restored():
                    features = upscaler.features(image, group, condition)
                    drawn = _draw(upscaler, features, chances[whole], of_group, temperature)
                image[strided_index(upscaler.offsets[group])] = drawn
        return flat.view(uniforms.shape)

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


def _draw(upscaler: Upscaler, features: Tensor, uniforms: Tensor, known: Tensor | None, temperature: float) -> Tensor:
    """All pixels of a group at once, channel by channel, ``(batch, C, *space)``; those that are known stay."""
    batch, channels, *space = uniforms.shape
    places, chances = (part.flatten(2).transpose(1, 2).flatten(0, 1) for part in (features, uniforms))
    given = None if known is None else known.flatten(2).transpose(1, 2).flatten(0, 1)
    pixels = torch.zeros(chances.shape, dtype=torch.long, device=uniforms.device)
    for channel in range(channels):
        logits = upscaler.head.logits_at(places, pixels, channel)
        drawn = invert_cdf(logits if temperature == 1 else logits.double() / temperature, chances[:, channel])
        if given is not None:
            drawn = torch.where(given[:, channel] >= 0, given[:, channel], drawn)
        pixels[:, channel] = drawn
    return pixels.view(batch, -1, channels).transpose(1, 2).reshape(batch, channels, *space)
