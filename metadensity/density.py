"""The contract of a density: a distribution over images, one for each task of a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from metadensity.checks import (
    expand_known,
    real_places,
    require_integer_pixels,
    require_lengths,
    require_levels,
    require_sizes,
    require_temperature,
)
from metadensity.drawing import Draws, Told, draw_uniforms

EXACT = "exact"
"""The quantity of a density that is no bound."""


def _not_given(what: str, instead: str) -> Any:
    """What stands in place of a method of torch.distributions that these densities do not have: it says so."""

    def refuse(self: Density, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not give {what}. {instead}")

    return refuse


class Density(Distribution):
    """A batch of distributions over images of integer pixels, one a task.

    batch_shape is ``(tasks,)``, event_shape ``(C, *space)``, pixels are integers in ``[0, levels)``.
    Log-probabilities are in nats. A task that knows its own truth returns the same type, so the
    distance from the best possible is one subtraction.

    exact: whether ``log_prob`` is the log-probability; where it is not, it is a bound (see ``BoundDensity``).
    """

    exact: ClassVar[bool] = True
    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, tasks: int, event_shape: Sequence[int], levels: int, validate_args: bool | None = None) -> None:
        self.levels = levels
        # None is not torch's default, which torch.compile switches off for all.
        self._validate_pixels = validate_args is not False
        super().__init__(torch.Size([tasks]), torch.Size(event_shape), validate_args=False)

    entropy: Any = _not_given("its entropy", "An estimate: -density.log_prob(density.sample((1000,))).mean(0).")
    mean: Any = property(_not_given("its mean", "An estimate: density.sample((1000,)).double().mean(0)."))
    variance: Any = property(_not_given("its variance", "An estimate: density.sample((1000,)).double().var(0)."))
    rsample: Any = _not_given("reparameterised samples", "Pixels are integers: take sample.")
    cdf: Any = _not_given("a cumulative distribution function", "Images have no order: take log_prob.")
    icdf: Any = cdf
    enumerate_support: Any = _not_given("a list of all images", "There are levels ** event_shape.numel() of them.")

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """Images of integers in ``[0, levels)``."""
        return constraints.independent(constraints.integer_interval(0, self.levels - 1), len(self.event_shape))

    @property
    def tasks(self) -> int:
        """Number of tasks in the batch."""
        return self.batch_shape[0]

    @property
    def quantity(self) -> str:
        """What ``log_prob`` is, in words that go wherever a number of it is printed."""
        return EXACT

    def log_prob(self, value: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probability in nats, shape ``(*sample, tasks)``, of ``value``, shape ``(*sample, tasks, C, *space)``.

        generator: what a bound draws from (None: torch's global one); an exact density needs none.
        Raises TypeError for pixels that are no integers, ValueError for a wrong shape or a level out of range.
        """
        self.check_value(value)
        return self._log_prob(value, generator)

    @abstractmethod
    def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        """``log_prob`` of a value that has been checked."""

    def prefix_log_prob(self, value: Tensor, lengths: Tensor) -> Tensor:
        """Log-probability in nats, ``(*sample, tasks)``, of the first ``lengths`` places of each sequence in ``value``.

        value: ``(*sample, tasks, C, T)``; lengths: ``(*sample, tasks)`` integers in [0, T]. What stands at later places
        costs nothing and is not looked at. Raises as ``log_prob`` does, and ValueError for densities that do not know
        the probability of a beginning, which is known where places come one by one from the first to the last.
        """
        raise ValueError(
            f"{type(self).__name__} does not give the probability of the beginning of a sequence. Score sequences of "
            "one length, or take a density that goes from the first place to the last."
        )

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

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ExpandedDensity:
        """The same over a larger batch: ``(*more, tasks)``, or ``(*more, n)`` where there is one task.

        Raises ValueError for another batch shape.
        """
        return ExpandedDensity(self, torch.Size(batch_shape))

    def _extended(self, sample_shape: Sequence[int]) -> torch.Size:
        try:
            return torch.Size([*sample_shape, *self.batch_shape, *self.event_shape])
        except TypeError:
            raise TypeError(
                f"sample_shape={sample_shape}; give a tuple of numbers: sample((8,)) draws 8 images of each task."
            ) from None


class ExpandedDensity(Distribution):
    """``base`` over a larger batch, whose entries are independent: what ``Density.expand`` gives.

    batch_shape: ``(*more, tasks)``, or ``(*more, n)`` where ``base`` has one task.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Density, batch_shape: torch.Size) -> None:
        self.base, self._event_dims = base, len(base.event_shape)
        if not batch_shape or (batch_shape[-1] != base.tasks and base.tasks != 1):
            raise ValueError(
                f"batch_shape={tuple(batch_shape)}; a density of {base.tasks} tasks expands to (*more, {base.tasks})."
            )
        self._copied = batch_shape[-1] != base.tasks
        super().__init__(batch_shape, base.event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """That of ``base``."""
        return self.base.support

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ExpandedDensity:
        """See ``Density.expand``."""
        return ExpandedDensity(self.base, torch.Size(batch_shape))

    def log_prob(self, value: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``(*sample, *batch_shape)`` of ``(*sample, *batch_shape, C, *space)``; see ``Density.log_prob``."""
        own = value.unsqueeze(-1 - self._event_dims) if self._copied else value
        found = self.base.log_prob(own, generator)
        found = found.squeeze(-1) if self._copied else found
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """``(*sample_shape, *batch_shape, C, *space)``; see ``Density.sample``."""
        if self._copied:
            return self.base.sample((*sample_shape, *self.batch_shape), generator).squeeze(-1 - self._event_dims)
        return self.base.sample((*sample_shape, *self.batch_shape[:-1]), generator)


class BoundDensity(Density):
    """A density whose ``log_prob`` is a lower bound of the log-probability, estimated from ``samples`` draws.

    The mean of ``log_prob`` over ``generator`` is at most the log-probability. A number of it is never printed or
    ranked beside an exact one without its ``quantity``.
    """

    exact: ClassVar[bool] = False

    def __init__(
        self, tasks: int, event_shape: Sequence[int], levels: int, samples: int, validate_args: bool | None = None
    ) -> None:
        require_sizes(samples=samples)
        self.samples = samples
        super().__init__(tasks, event_shape, levels, validate_args)

    @property
    def quantity(self) -> str:
        """See ``Density.quantity``."""
        return f"bound with {self.samples} sample{'s' * (self.samples != 1)}"


class FactorisedDensity(Density):
    """An exact density that is a product over places, each given those before it: it has the terms of ``log_prob``."""

    def conditional_log_probs(self, value: Tensor) -> Tensor:
        """The terms of ``log_prob``: log p(x_t | x_<t, support) in nats at each place, the shape of ``value``.

        Raises as ``log_prob`` does.
        """
        self.check_value(value)
        return self._conditional_log_probs(value)

    @abstractmethod
    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        """``conditional_log_probs`` of a value that has been checked."""

    def level_log_probs(self, value: Tensor) -> Tensor:
        """Log-probabilities of all levels at each place given those before it, ``(*sample, tasks, levels, C, *space)``.

        Raises as ``log_prob`` does, and ValueError for densities that do not tell those of other levels.
        """
        self.check_value(value)
        return self._level_log_probs(value)

    def _level_log_probs(self, value: Tensor) -> Tensor:
        """``level_log_probs`` of a value that has been checked."""
        raise ValueError(
            f"{type(self).__name__} tells the probabilities of the pixels that are there, not of all levels in their "
            "place. Take a density that draws pixel after pixel, or one of independent pixels."
        )

    def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        return self._summed(self._conditional_log_probs(value))

    def prefix_log_prob(self, value: Tensor, lengths: Tensor) -> Tensor:
        """See ``Density.prefix_log_prob``: the sum of the terms of the first places."""
        if len(self.event_shape) != 2 or not self._first_to_last():
            return super().prefix_log_prob(value, lengths)
        require_lengths("lengths", lengths, value.shape[:-2], value.shape[-1])
        real = real_places(lengths, value.shape[-1]).to(value.device).unsqueeze(-2)
        terms = self.conditional_log_probs(torch.where(real, value, 0))
        return self._summed(torch.where(real, terms, 0.0))

    def rest_log_prob(self, value: Tensor, lengths: Tensor) -> Tensor:
        """Log-probability in nats, ``(*sample, tasks)``, of each sequence given its own first ``lengths`` places.

        Of a source and its target: log p(target | source, support). It and ``prefix_log_prob`` add up to ``log_prob``.
        Raises as that does, and ValueError where places do not come one by one from the first to the last.
        """
        if len(self.event_shape) != 2 or not self._first_to_last():
            raise ValueError(
                f"{type(self).__name__} does not give the probability of the rest of a sequence given its beginning. "
                "Take a density of sequences that goes from the first place to the last."
            )
        require_lengths("lengths", lengths, value.shape[:-2], value.shape[-1])
        given = real_places(lengths, value.shape[-1]).to(value.device).unsqueeze(-2)
        return self._summed(torch.where(given, 0.0, self.conditional_log_probs(value)))

    def _first_to_last(self) -> bool:
        """Whether each term is given the places before it in raster order, and no other."""
        return True

    def _summed(self, terms: Tensor) -> Tensor:
        """Added up in float64, and given in float32 at least: half the precision would round whole nats away."""
        total = terms.flatten(-len(self.event_shape)).sum(-1, dtype=torch.float64)
        return total.to(torch.promote_types(terms.dtype, torch.float32))


class SequentialDensity(FactorisedDensity):
    """p(x) as a product over the steps of an order, in which pixels can be drawn, and some of them given.

    order: the order in words, for messages: "Only pixels that come first in ORDER ...".
    """

    order: ClassVar[str] = "raster order"

    @property
    def generation_order(self) -> Tensor:
        """At which step each place is generated, ``(*space)`` int64: a place depends on those of smaller steps alone.

        Places of one step are independent of one another given those; the channels of a place follow one another.
        Here raster order, a place a step.
        """
        space = self.event_shape[1:]
        return torch.arange(space.numel()).view(space)

    def _first_to_last(self) -> bool:
        steps = self.generation_order.flatten()
        return bool((steps[1:] > steps[:-1]).all())

    def _level_log_probs(self, value: Tensor) -> Tensor:
        """By its sampler, which is given all pixels; so without gradients, where a density has no other way."""
        if not self._first_to_last():
            return super()._level_log_probs(value)
        channels, *space = self.event_shape
        if not value.numel():
            return torch.zeros(*value.shape[: -1 - len(space)], self.levels, channels, *space, device=value.device)
        told = Told(torch.zeros((), device=value.device).expand(value.shape), value.long())
        self.drawn(told)
        found = torch.stack([each.reshape(*value.shape[: -1 - len(space)], -1) for each in told.found], -1)
        return found.unflatten(-1, (*space, channels)).movedim(-1, -1 - len(space))

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where pixels are drawn."""

    @property
    def has_attention(self) -> bool:
        """Whether it looks at its supports while it scores, so that there are ``attention_weights``."""
        return False

    def attention_weights(self, value: Tensor) -> Tensor:
        """Where each place looks in the supports while it is scored: ``(*sample, tasks, J, *space)``.

        J: the patches of all supports in order, and last the learned null entry; the weights sum to one over them.
        Raises ValueError for a density without attention, and as ``log_prob`` does.
        """
        self.check_value(value)
        raise ValueError("This density looks at no supports while it scores; take a model with attention.")

    @torch.no_grad()
    def sample_from_uniforms(
        self, uniforms: Tensor, *, known: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        """The images that these uniform numbers in [0, 1) stand for, by inverting each pixel's CDF in turn.

        uniforms: ``(*sample, tasks, C, *space)``. The map is deterministic: equal numbers, equal images.
        known: pixels that are given, of a shape that broadcasts to that of ``uniforms``; -1 where one is to be drawn.
            Each pixel is drawn given those of earlier steps alone (see ``metadensity.densities.completion``).
        temperature: what logits are divided by; below 1 likely pixels become likelier still. 1 is the density.

        Raises ValueError for another shape, a known pixel out of range or a temperature that is not positive.
        """
        return self.drawn(self._draws(uniforms, known, temperature))

    @torch.no_grad()
    def drawn(self, draws: Draws, *how: Any) -> Tensor:
        """Images whose pixels ``draws`` decides one after another, in order; ``(*sample, tasks, C, *space)`` int64.

        how: what the density's own ``sample_from_uniforms`` takes besides.
        """
        if not draws.uniforms.numel():
            return torch.zeros(draws.uniforms.shape, dtype=torch.long, device=draws.uniforms.device)
        return self._drawn(draws, *how)

    @abstractmethod
    def _drawn(self, draws: Draws) -> Tensor:
        """``drawn`` of one image at least."""

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw in order; see ``Density.sample``."""
        return self.sample_from_uniforms(draw_uniforms(self._extended(sample_shape), generator, self.device))

    def _draws(self, uniforms: Tensor, known: Tensor | None, temperature: float) -> Draws:
        """The arguments of ``sample_from_uniforms`` once they have been checked, ``known`` in the shape of others."""
        expected = (*self.batch_shape, *self.event_shape)
        if tuple(uniforms.shape[-len(expected) :]) != expected:
            raise ValueError(f"uniforms have shape {tuple(uniforms.shape)}; they must end in {expected}.")
        require_temperature(temperature)
        given = None if known is None else expand_known(known, uniforms.shape, self.levels)
        return Draws(uniforms, given, temperature)


class DerivedDensity(SequentialDensity):
    """A density that changes the terms of ``base``: its order, its device and its attention are those of that one."""

    def __init__(self, base: SequentialDensity, validate_args: bool | None = None) -> None:
        self.base = base
        super().__init__(base.tasks, base.event_shape, base.levels, validate_args)

    @property
    def generation_order(self) -> Tensor:
        """See ``SequentialDensity.generation_order``."""
        return self.base.generation_order

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.base.device

    @property
    def has_attention(self) -> bool:
        """See ``SequentialDensity.has_attention``."""
        return self.base.has_attention

    def attention_weights(self, value: Tensor) -> Tensor:
        """See ``SequentialDensity.attention_weights``."""
        return self.base.attention_weights(value)
