"""The contract of a density: a distribution over images, one for each task of a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from metadensity.checks import expand_known, require_integer_pixels, require_levels, require_temperature


class Density(Distribution):
    """A batch of exact distributions over images of integer pixels, one a task.

    batch_shape is ``(tasks,)``, event_shape ``(C, *space)``, pixels are integers in ``[0, levels)``.
    Log-probabilities are in nats. A task that knows its own truth returns the same type, so the
    distance from the best possible is one subtraction.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.nonnegative_integer

    def __init__(self, tasks: int, event_shape: Sequence[int], levels: int, validate_args: bool | None = None) -> None:
        self.levels = levels
        self._validate_pixels = Distribution._validate_args if validate_args is None else validate_args
        super().__init__(torch.Size([tasks]), torch.Size(event_shape), validate_args=False)

    @property
    def tasks(self) -> int:
        """Number of tasks in the batch."""
        return self.batch_shape[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, shape ``(*sample, tasks)``, of ``value``, shape ``(*sample, tasks, C, *space)``.

        Raises TypeError for pixels that are no integers, ValueError for a wrong shape or a level out of range.
        """
        pixelwise = self.pixel_log_prob(value)
        return pixelwise.flatten(-len(self.event_shape)).sum(-1, dtype=torch.float64).to(pixelwise.dtype)

    def pixel_log_prob(self, value: Tensor) -> Tensor:
        """The terms of ``log_prob``: log p(x_t | x_<t, support) in nats at each place, the shape of ``value``.

        Raises as ``log_prob`` does.
        """
        self.check_value(value)
        return self._pixel_log_prob(value)

    @abstractmethod
    def _pixel_log_prob(self, value: Tensor) -> Tensor:
        """``pixel_log_prob`` of a value that has been checked."""

    @abstractmethod
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw images, shape ``(*sample_shape, tasks, C, *space)``, int64, without gradients.

        All randomness comes from ``generator`` (None: torch's global one).
        """

    def check_value(self, value: Tensor) -> None:
        """Raise unless ``value`` is a batch of images this density can score."""
        require_integer_pixels("value", value)
        expected = (*self.batch_shape, *self.event_shape)
        if tuple(value.shape[-len(expected) :]) != expected:
            raise ValueError(
                f"value has shape {tuple(value.shape)}; this density scores (*samples, tasks, channels, *space) = "
                f"(*samples, {', '.join(map(str, expected))}). For one image a task, pass exactly {expected}."
            )
        if self._validate_pixels:
            require_levels("value", value, self.levels)

    def _extended(self, sample_shape: Sequence[int]) -> torch.Size:
        return torch.Size([*sample_shape, *self.batch_shape, *self.event_shape])


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
            Each pixel is drawn given those of earlier steps alone (see ``metadensity.densities.completion``).
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
