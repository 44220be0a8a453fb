"""Densities: distributions over images, one for each task of a batch."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from metadensity.episode import require_integer_pixels, require_levels


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


class IndependentDensity(Density):
    """Pixels independent of one another, each with its own categorical distribution.

    logits: ``(tasks, levels, C, *space)``, normalised here; or ``(1, levels, C, *space)``, the same for all ``tasks``.
    log_probs: what they are normalised to. A table of 256 levels is large: no copy of it is made for each image.
    """

    log_probs: Tensor

    def __init__(self, logits: Tensor, validate_args: bool | None = None, tasks: int | None = None) -> None:
        given, levels, *event_shape = logits.shape
        self.log_probs = logits.log_softmax(1)
        super().__init__(given if tasks is None else tasks, event_shape, levels, validate_args)

    def _pixel_log_prob(self, value: Tensor) -> Tensor:
        return look_up(self.log_probs, value)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        uniforms = torch.rand(self._extended(sample_shape), generator=generator, device=self.log_probs.device)
        return invert_cdf(self.log_probs.movedim(1, -1), uniforms)


def look_up(table: Tensor, value: Tensor) -> Tensor:
    """The entries of a table of all levels at those of images, the shape of ``value``.

    table: ``(tasks, levels, C, *space)``, or with 1 for tasks where all share it.
    value: integers ``(*sample, tasks, C, *space)``.
    """
    tasks, levels, *event_shape = table.shape
    places = math.prod(event_shape)
    index = value.long() * places + torch.arange(places, device=value.device).view(event_shape)
    if tasks > 1:
        first = torch.arange(tasks, device=value.device) * (levels * places)
        index = index + first.view(tasks, *[1] * len(event_shape))
    # Not gather: its gradient is of the size of the table for each image.
    return table.reshape(-1).index_select(0, index.reshape(-1)).view(value.shape)


def invert_cdf(logits: Tensor, uniforms: Tensor) -> Tensor:
    """The levels at which categorical distributions reach ``uniforms``: inverse-CDF sampling.

    logits: ``(..., levels)``; uniforms: ``(...)`` in [0, 1). Returns int64 levels ``(...)``.
    """
    cdf = logits.double().softmax(-1).cumsum(-1)  # in float32 ways to the same logits would part at many levels
    level = (uniforms.unsqueeze(-1) >= cdf).sum(-1)
    return level.clamp_(max=logits.shape[-1] - 1)  # a CDF that rounds to just below one


def mean_logits(logits: Sequence[Tensor], dim: int) -> Tensor:
    """Logits of the mean of categorical distributions, whose levels lie along ``dim``; a single one stays as it is."""
    if len(logits) == 1:
        return logits[0]
    return log_mean([each.log_softmax(dim) for each in logits])


def log_mean(logarithms: Sequence[Tensor]) -> Tensor:
    """Logarithm of the mean of what these are the logarithms of, entry by entry."""
    return torch.stack(list(logarithms)).logsumexp(0) - math.log(len(logarithms))
