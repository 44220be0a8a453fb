"""Densities that draw their pixels in an order, each given those of earlier steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from metadensity.density import Density
from metadensity.episode import require_integer_pixels


class OrderedDensity(Density):
    """p(x) as a product over the steps of an order, in which pixels can be drawn, and some of them given.

    order: the order in words, for messages: "Only pixels that come first in ORDER ...".
    """

    order: ClassVar[str] = "raster order"

    @property
    @abstractmethod
    def steps(self) -> Tensor:
        """At which step each place is generated, ``(*space)`` int64: a place depends on those of smaller steps alone.

        Places of one step are independent of one another given those; the channels of a place follow one another.
        """

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where pixels are drawn."""

    @property
    @abstractmethod
    def attends(self) -> bool:
        """Whether it looks at its supports while it scores, so that there are ``attention_weights``."""

    @abstractmethod
    def attention_weights(self, value: Tensor) -> Tensor:
        """Where each place looks in the supports while it is scored: ``(*sample, tasks, J, *space)``.

        J: the patches of all supports in order, and last the learned null entry; the weights sum to one over them.
        Raises ValueError for a density without attention, and as ``log_prob`` does.
        """

    @abstractmethod
    def sample_from(self, uniforms: Tensor, *, known: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """The images that these uniform numbers in [0, 1) stand for, by inverting each pixel's CDF in turn.

        uniforms: ``(*sample, tasks, C, *space)``. The map is deterministic: equal numbers, equal images.
        known: pixels that are given, of a shape that broadcasts to that of ``uniforms``; -1 where one is to be drawn.
            Each pixel is drawn given those of earlier steps alone (see ``metadensity.completion``).
        temperature: what logits are divided by; below 1 likely pixels become likelier still. 1 is the density.

        Raises ValueError for another shape, a known pixel out of range or a temperature that is not positive.
        """

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw in order; see ``Density.sample``."""
        return self.sample_from(torch.rand(self._extended(sample_shape), generator=generator, device=self.device))

    def _require_drawable(self, uniforms: Tensor, known: Tensor | None, temperature: float) -> Tensor | None:
        """``known`` in the shape of ``uniforms``, once the arguments of ``sample_from`` have been checked."""
        expected = (*self.batch_shape, *self.event_shape)
        if tuple(uniforms.shape[-len(expected) :]) != expected:
            raise ValueError(f"uniforms have shape {tuple(uniforms.shape)}; they must end in {expected}.")
        require_temperature(temperature)
        return None if known is None else expand_known(known, uniforms.shape, self.levels)


def require_temperature(temperature: float) -> None:
    """Raise ValueError unless ``temperature`` is a positive number."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature}; it must be a positive number (1 draws from the density itself).")


def expand_known(known: Tensor, shape: torch.Size, levels: int) -> Tensor:
    """``known`` as int64 of this shape; ValueError where it does not broadcast, or holds other than -1 or a level."""
    require_integer_pixels("known", known)
    try:
        expanded = known.long().expand(shape)
    except RuntimeError as error:
        raise ValueError(f"known has shape {tuple(known.shape)}; it must broadcast to {tuple(shape)}.") from error
    if known.numel() and not -1 <= int(known.min()) <= int(known.max()) < levels:
        raise ValueError(
            f"known holds pixels from {int(known.min())} to {int(known.max())}; give levels 0 to {levels - 1}, and -1 "
            "where a pixel is to be drawn."
        )
    return expanded
