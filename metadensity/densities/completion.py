"""Drawing image by image: a seed for each, from what is known of it, in parts of which none is lost.

What comes first in the order in which a density draws is completed exactly: where no observed pixel depends on an
unobserved one, the rest is drawn from p(rest | observed, support). For most networks that order is the raster's, and
the upper half comes first. A multiscale density draws a small image, every so many-th pixel, and then those between:
for it a smaller image comes first, which it enlarges exactly, and the upper half does not. Any other mask is completed
approximately, and only where asked for: each unobserved pixel is drawn given the pixels before it, observed or drawn,
and not given those observed after it, which such a model could only take account of by weighing many completions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metadensity.checks import expand_known, require_sizes, require_temperature
from metadensity.densities.independent import IndependentDensity
from metadensity.density import Density, SequentialDensity
from metadensity.drawing import Draws, invert_cdf
from metadensity.progress import progress_bar


@dataclass(frozen=True)
class Part:
    """Some of the images that were asked for: those of the samples ``first`` to ``last - 1``.

    images: ``(last - first, tasks, C, *space)`` int64.
    """

    first: int
    last: int
    images: Tensor


def observe(image: Tensor, observed: Tensor) -> Tensor:
    """Known pixels as ``complete`` takes them: ``image`` where ``observed`` (bool, broadcast), -1 elsewhere."""
    return torch.where(observed, image.long(), -1)


def complete(density: Density, seeds: Tensor, known: Tensor | None = None, **options: Any) -> Tensor:
    """Draw the pixels that are not known: ``(samples, tasks, C, *space)`` int64.

    Arguments and options are those of ``complete_in_parts``.
    """
    parts = complete_in_parts(density, seeds, known, **options)
    shape = (0, density.tasks, *density.event_shape)
    return torch.cat([torch.zeros(shape, dtype=torch.long), *(part.images.cpu() for part in parts)])


def complete_in_parts(
    density: Density,
    seeds: Tensor,
    known: Tensor | None = None,
    *,
    approximate: bool = False,
    temperature: float = 1.0,
    images_at_once: int = 64,
    progress: bool = False,
) -> Iterator[Part]:
    """Draw the pixels that are not known, some samples of all tasks at a time; whoever interrupts keeps the parts.

    seeds: ``(samples, tasks)`` integers. An image depends on its own seed, known pixels and task alone, not on what is
        drawn beside it (but for the rounding of matrix products, which depends on the number of images).
    known: pixels, of a shape that broadcasts to ``(samples, tasks, C, *space)``, -1 where one is to be drawn (see
        ``observe``). None: nothing is known, the images are samples.
    approximate: take any mask (see the module); otherwise what is known must come first in the density's order.
    temperature: what logits are divided by.
    images_at_once: images in a part, about.

    Densities whose pixels are independent are completed exactly, whatever the mask. Raises TypeError for a density
    that draws its pixels in no order, ValueError for arguments out of range.
    """
    if not isinstance(density, SequentialDensity | IndependentDensity):
        raise TypeError(
            f"{type(density).__name__} does not draw its pixels one by one, each given those before it, so it cannot "
            "complete images; take a network (attention, conditional, multiscale, ...) or one of independent pixels."
        )
    if seeds.ndim != 2 or seeds.shape[1] != density.tasks or seeds.is_floating_point():
        raise ValueError(
            f"seeds have shape {tuple(seeds.shape)} and {seeds.dtype}; give integers, (samples, {density.tasks})."
        )
    require_sizes(images_at_once=images_at_once)
    require_temperature(temperature)
    given = None
    if known is not None:
        given = expand_known(known, torch.Size([*seeds.shape, *density.event_shape]), density.levels)
        if not approximate and isinstance(density, SequentialDensity):
            require_prefix(given, density)
    return _parts(density, seeds, given, temperature, max(1, images_at_once // max(1, density.tasks)), progress)


def _parts(
    density: SequentialDensity | IndependentDensity,
    seeds: Tensor,
    known: Tensor | None,
    temperature: float,
    step: int,
    progress: bool,
) -> Iterator[Part]:
    with progress_bar("drawing", seeds.numel() * density.event_shape.numel(), "pixels", progress) as bar:
        for first in range(0, len(seeds), step):
            own = seeds[first : first + step]
            given = None if known is None else known[first : first + step]
            uniforms = uniforms_of(own, tuple(density.event_shape))
            if isinstance(density, SequentialDensity):
                device = density.device
                given = None if given is None else given.to(device)
                images = density.drawn(Draws(uniforms.to(device), given, temperature, bar.update))
            else:
                images = _draw_independent(density, uniforms, given, temperature)
                bar.update(images.numel())
            yield Part(first, first + len(own), images)


@torch.no_grad()
def _draw_independent(
    density: IndependentDensity, uniforms: Tensor, known: Tensor | None, temperature: float
) -> Tensor:
    logits = density.log_probs.movedim(1, -1) / temperature
    drawn = invert_cdf(logits, uniforms.to(logits.device))
    return drawn if known is None else torch.where(known.to(drawn.device) >= 0, known.to(drawn.device), drawn)


def seeds_of(seed: int, samples: int, tasks: int) -> Tensor:
    """A seed for each image, ``(samples, tasks)`` int64, from (seed, sample, task) alone: more images change none.

    Raises ValueError for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed={seed}; it must be 0 or more.")
    mixed = [
        [np.random.SeedSequence([seed, sample, task]).generate_state(1, np.uint64)[0] >> 1 for task in range(tasks)]
        for sample in range(samples)
    ]
    return torch.from_numpy(np.array(mixed, dtype=np.int64).reshape(samples, tasks))


def uniforms_of(seeds: Tensor, event_shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [0, 1) for each image from its own seed: ``(*seeds.shape, *event_shape)`` float32."""
    drawn = [_uniforms(int(seed), event_shape) for seed in seeds.flatten()]
    if not drawn:
        return torch.zeros(*seeds.shape, *event_shape)
    return torch.from_numpy(np.stack(drawn)).view(*seeds.shape, *event_shape)


def _uniforms(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    generator = np.random.Generator(np.random.Philox(key=seed % 2**64))
    return generator.random(shape, dtype=np.float32)


def require_prefix(known: Tensor, density: SequentialDensity) -> None:
    """Raise ValueError where a known pixel (not -1) comes after an unknown one that it depends on.

    known: ``(samples, tasks, C, *space)``. Places of one step do not depend on one another, whatever is known of them.
    """
    observed = known >= 0
    steps = density.generation_order.to(known.device)
    unknown = torch.where(observed.all(2), int(steps.max()) + 1, steps).flatten(2).amin(-1)  # the first such step
    later = steps > unknown[(...,) + (None,) * steps.ndim]  # (samples, tasks, *space)
    broken = observed & ~observed.int().cumprod(2).bool()  # after an unknown channel of its own place
    late = (observed & later.unsqueeze(2)) | broken
    if not late.any():
        return
    where = late.nonzero()
    sample, task, channel, *place = where[steps[tuple(where[:, 3:].T)].argmin()].tolist()
    raise ValueError(
        f"Sample {sample} of task {task} has a known pixel at {tuple(place)} (channel {channel}) after an unknown one. "
        f"Only pixels that come first in {density.order} can be completed exactly; pass approximate=True to have each "
        "pixel drawn given those before it alone."
    )
