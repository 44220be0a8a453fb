"""Multiscale PixelCNN: a small image pixel by pixel, then doubled in size again and again, a group of pixels a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from metadensity.autoregressive import AutoregressiveDensity
from metadensity.density import invert_cdf
from metadensity.models.base import FewShotModel, require_sizes
from metadensity.nn.heads import head_log_prob, require_likelihood
from metadensity.nn.pixelcnn import Condition, PixelCNN
from metadensity.nn.support import PatchEncoder, VectorEncoder, require_attention
from metadensity.nn.upscaler import Upscaler, at
from metadensity.ordered import OrderedDensity


class MultiscaleDensity(OrderedDensity):
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
        base: AutoregressiveDensity,
        upscalers: Sequence[tuple[Upscaler, Condition]],
        event_shape: Sequence[int],
        levels: int,
        validate_args: bool | None = None,
    ) -> None:
        self.base, self.upscalers = base, list(upscalers)
        super().__init__(base.tasks, event_shape, levels, validate_args)

    @property
    def steps(self) -> Tensor:
        """The base in raster order, then a step a group; see ``OrderedDensity.steps``."""
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

    def _pixel_log_prob(self, value: Tensor) -> Tensor:
        pixels = value.reshape(-1, *self.event_shape)
        if not len(pixels):
            return torch.zeros(value.shape, device=value.device)
        small = pixels[self._base_index]
        known = self.base.pixel_log_prob(small.unflatten(0, (-1, self.tasks))).flatten(0, 1)
        terms = known.new_zeros(pixels.shape)
        terms[self._base_index] = known
        for stride, upscaler, condition in self._scales():
            image = pixels[at([0] * upscaler.dims, stride)]
            for group in upscaler.groups:
                features = upscaler.features(image, group, condition)
                target = image[at(upscaler.offsets[group])]
                terms[_within(upscaler, group, stride)] = head_log_prob(upscaler.head, features, target)
        return terms.view(value.shape)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.base.device

    @property
    def attends(self) -> bool:
        """See ``OrderedDensity.attends``."""
        return self.base.attends

    def attention_weights(self, value: Tensor) -> Tensor:
        """Each place in the network that generates it, base or upscaler; see ``OrderedDensity.attention_weights``."""
        self.check_value(value)
        small = self.base.attention_weights(value[self._base_index])
        weights = small.new_zeros(*small.shape[: 1 - len(self.event_shape)], *self.event_shape[1:])
        weights[self._base_index] = small
        pixels = value.reshape(-1, *self.event_shape)
        for stride, upscaler, condition in self._scales():
            image = pixels[at([0] * upscaler.dims, stride)]
            for group in upscaler.groups:
                inside = _within(upscaler, group, stride)
                found = upscaler.attention_weights(image, group, condition)
                weights[inside] = found.view(weights[inside].shape)
        return weights

    @torch.no_grad()
    def sample_from(self, uniforms: Tensor, *, known: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """See ``OrderedDensity.sample_from``; a group at a time."""
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
        small = self.base.sample_from(first, known=of_first, temperature=temperature)
        flat[self._base_index] = small.flatten(0, 1)
        for stride, upscaler, condition in self._scales():
            image = flat[at([0] * upscaler.dims, stride)]  # a view: what is drawn is written into the image
            for group in upscaler.groups:
                whole = _within(upscaler, group, stride)
                features = upscaler.features(image, group, condition)
                of_group = None if held is None else held[whole]
                image[at(upscaler.offsets[group])] = _draw(upscaler, features, chances[whole], of_group, temperature)
        return flat.view(uniforms.shape)

    @property
    def _base_index(self) -> Any:
        return at([0] * (len(self.event_shape) - 1), 2 ** len(self.upscalers))

    def _scales(self) -> list[tuple[int, Upscaler, Condition]]:
        """The stride of each scale's image in the whole one, with its network and condition, smallest image first."""
        count = len(self.upscalers)
        return [(2 ** (count - 1 - i), *given) for i, given in enumerate(self.upscalers)]


def _within(upscaler: Upscaler, group: int, stride: int) -> Any:
    """The index in the whole image of a group of the scale whose image has this stride."""
    return at([first * stride for first in upscaler.offsets[group]], 2 * stride)


def _draw(upscaler: Upscaler, features: Tensor, uniforms: Tensor, known: Tensor | None, temperature: float) -> Tensor:
    """All pixels of a group at once, channel by channel, ``(batch, C, *space)``; those that are known stay."""
    batch, channels, *space = uniforms.shape
    places, chances = (part.flatten(2).transpose(1, 2).flatten(0, 1) for part in (features, uniforms))
    given = None if known is None else known.flatten(2).transpose(1, 2).flatten(0, 1)
    pixels = torch.zeros(chances.shape, dtype=torch.long, device=uniforms.device)
    for channel in range(channels):
        logits = upscaler.head.place(places, pixels, channel)
        drawn = invert_cdf(logits if temperature == 1 else logits.double() / temperature, chances[:, channel])
        if given is not None:
            drawn = torch.where(given[:, channel] >= 0, given[:, channel], drawn)
        pixels[:, channel] = drawn
    return pixels.view(batch, -1, channels).transpose(1, 2).reshape(batch, channels, *space)


class MultiscalePixelCNN(FewShotModel):
    """An AttentionPixelCNN of a small image and a network a doubling (Reed et al. 2018, section 4.3, as recalled).

    The factorisation is that of Reed et al. 2017, "Parallel Multiscale Autoregressive Density Estimation". The paper's
    Online Products model: 8, 16 and 32 pixels a side, 12 layers in the base, 18 in each upscaler, 128 planes, 512 in
    the penultimate layer. Departure: every network reads the supports at full resolution, through patches of its own.

    base: the longest side of the smallest image. Sizes are halved, rounding up, while a side is longer than that and
        all have more than two places; an image that is small already is left to the base.
    upscaler_layers: layers of each upscaler. context: size of f(s); None means twice the planes.
    attention: "additive" or "dot". likelihood, components: see ``metadensity.nn.heads.build_head``.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        base: int = 8,
        layers: int = 12,
        upscaler_layers: int = 18,
        planes: int = 24,
        penultimate: int = 32,
        kernel_size: int = 3,
        context: int | None = None,
        attention: str = "dot",
        likelihood: str = "categorical",
        components: int = 10,
    ) -> None:
        context = 2 * planes if context is None else context
        shared: Any = {
            "planes": planes,
            "penultimate": penultimate,
            "kernel_size": kernel_size,
            "context": context,
            "attention": attention,
            "likelihood": likelihood,
            "components": components,
        }
        super().__init__(event_shape, levels, base=base, layers=layers, upscaler_layers=upscaler_layers, **shared)
        require_sizes(base=base, layers=layers, upscaler_layers=upscaler_layers, planes=planes, context=context)
        require_sizes(penultimate=penultimate, components=components)
        require_likelihood(likelihood)
        require_attention(attention)
        channels, *space = self.event_shape
        shapes = [(channels, *space)]
        while max(space) > base and min(space) > 2:
            space = [-(-size // 2) for size in space]
            shapes.insert(0, (channels, *space))
        self.encoder = VectorEncoder(self.event_shape, levels, planes, context)
        self.patches = nn.ModuleList(PatchEncoder(self.event_shape, levels, planes, planes, planes) for _ in shapes)
        self.base = PixelCNN(shapes[0], levels, layers=layers, **shared)
        self.upscalers = nn.ModuleList(
            Upscaler(shape, levels, layers=upscaler_layers, **shared) for shape in shapes[1:]
        )

    def condition(self, support: Tensor) -> MultiscaleDensity:
        """Encode the support into f(s), and keys and values for each network."""
        tasks, vector = support.shape[1], self.encoder(support)
        first, *patches = (encoder(support) for encoder in self.patches)
        base = AutoregressiveDensity(self.base, self.base.condition(tasks, vector, first), validate_args=False)
        networks = [cast(Upscaler, upscaler) for upscaler in self.upscalers]
        upscalers = [
            (network, network.condition(tasks, vector, given)) for network, given in zip(networks, patches, strict=True)
        ]
        return MultiscaleDensity(base, upscalers, self.event_shape, self.levels)
