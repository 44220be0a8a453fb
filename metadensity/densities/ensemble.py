"""Several densities as one, exactly: their mixture, or at each pixel the mean or the product of their conditionals."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.densities.independent import IndependentDensity
from metadensity.densities.linear_prediction import in_order, out_of_order
from metadensity.densities.pixelcnn import PixelCNNDensity, RasterDensity
from metadensity.density import Density, SequentialDensity
from metadensity.drawing import Draws, draw_uniforms, invert_cdf
from metadensity.likelihoods.levels import levels_of_images, logmeanexp, mixture_logits
from metadensity.sampling.cached import sample_ensemble
from metadensity.sampling.together import draw_together

WAYS = ("mean", "mixture", "product")
IMPOSSIBLE = -1e4
"""What stands for the logarithm of zero in a product in which another member has a level for possible."""


def ensemble_density(members: Sequence[Density], combine: str = "mean", log_weights: Tensor | None = None) -> Density:
    """One density of several of the same tasks and images.

    mixture: p(x) = sum_m w_m p_m(x). mean: p(x_t | x_<t) = sum_m w_m p_m(x_t | x_<t) at each place. product: the same
    with prod_m p_m(x_t | x_<t)^a_m, made to sum to one over the levels of each place.
    log_weights: ``(tasks, members)``, log w (which sum to one) or log a; None: 1 / members each.

    The mixture takes members of any kind, in whatever order they go through an image; where one is a bound, it is one:
    ``exact`` and ``quantity`` say so. Where all go through it in raster order it does as well, and is the mean with
    weights that follow the pixels so far, w_m <- w_m p_m(x_t | x_<t).
    Raises ValueError for members that are not made for the way.
    """
    if combine not in WAYS:
        raise ValueError(f"combine={combine!r}; choose one of {', '.join(WAYS)}.")
    odd = next((member for member in members if not _in_raster_order(member)), None)
    if odd is not None:
        if combine != "mixture":
            raise ValueError(
                f"combine={combine!r} takes members that go through an image in raster order, each place given those "
                f"before it; {type(odd).__name__} does not. Take combine='mixture', or leave that member out."
            )
        return MixedDensity(members, log_weights)
    if all(isinstance(member, RasterDensity) for member in members):
        return EnsembleDensity(members, combine, log_weights)
    return SequentialEnsembleDensity(members, combine, log_weights)


def _in_raster_order(member: Density) -> bool:
    return isinstance(member, SequentialDensity | IndependentDensity) and member._first_to_last()


def combined_terms(terms: Tensor, combine: str, log_weights: Tensor | None, dims: int) -> Tensor:
    """log p(x_t | x_<t) of the mean or the mixture, ``(*sample, tasks, C, *space)``, from the members', stacked first.

    log_weights: see ``ensemble_density``; dims: of space.
    """
    if combine == "mean":
        return (
            logmeanexp(list(terms))
            if log_weights is None
            else (terms + _along(log_weights, terms, dims + 1)).logsumexp(0)
        )
    running = _before(in_order(terms, dims), log_weights)
    totals = running.logsumexp(0)
    found = torch.where(totals[..., :-1] == -torch.inf, 0.0, totals.diff(dim=-1))  # what follows what is impossible
    return out_of_order(found.to(terms.dtype), (terms.shape[-dims - 1], *terms.shape[-dims:]))


def combined_levels(tables: Tensor, combine: str, log_weights: Tensor | None, value: Tensor, dims: int) -> Tensor:
    """Log-probabilities of all levels ``(*sample, tasks, levels, C, *space)``, from the members', stacked first."""
    if combine == "product":
        return _product(tables, None if log_weights is None else _along(log_weights, tables, dims + 2), -2 - dims)
    if combine == "mean":
        weighted = (
            tables - math.log(len(tables)) if log_weights is None else tables + _along(log_weights, tables, dims + 2)
        )
        return weighted.logsumexp(0)
    terms = levels_of_images(tables, value, dims)
    before = _before(in_order(terms, dims), log_weights)[..., :-1].log_softmax(0).to(tables.dtype)
    return (tables + out_of_order(before, terms.shape[-dims - 1 :]).unsqueeze(-2 - dims)).logsumexp(0)


def _product(tables: Tensor, log_weights: Tensor | None, levels: int) -> Tensor:
    """The product of tables, stacked first, renormalised along the dimension ``levels``."""
    powers = 1 / len(tables) if log_weights is None else log_weights.exp()
    never = (tables == -torch.inf).all(0)
    return (tables.clamp(min=IMPOSSIBLE) * powers).sum(0).masked_fill(never, -torch.inf).log_softmax(levels)


def _along(log_weights: Tensor, terms: Tensor, after: int) -> Tensor:
    """Weights ``(tasks, members)`` beside what is stacked as ``(members, *sample, tasks, *after)``."""
    members, tasks = log_weights.shape[1], log_weights.shape[0]
    return log_weights.T.to(terms.dtype).view(members, *[1] * (terms.ndim - 2 - after), tasks, *[1] * after)


def _before(sites: Tensor, log_weights: Tensor | None) -> Tensor:
    """log w_m p_m(x_<t) ``(members, *sample, tasks, places + 1)`` float64, from terms in raster order."""
    running = F.pad(sites.double().cumsum(-1), (1, 0))
    return running - math.log(len(sites)) if log_weights is None else running + _along(log_weights, sites, 1)


def _mixture_log_prob(
    members: Sequence[Density], log_weights: Tensor | None, value: Tensor, generator: torch.Generator | None
) -> Tensor:
    """log p of the mixture of whole images, ``(*sample, tasks)``."""
    totals = torch.stack([member._log_prob(value, generator) for member in members])
    if log_weights is None:
        return logmeanexp(list(totals))
    return (totals + _along(log_weights, totals, 0)).logsumexp(0)


class _InRasterOrder(SequentialDensity):
    """Densities that go through an image in raster order, as one that does; see ``ensemble_density``.

    members: at least one, of the same tasks and images.
    """

    def __init__(
        self,
        members: Sequence[Density],
        combine: str = "mean",
        log_weights: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.members: list[Any] = list(members)
        self.combine, self.log_weights = combine, log_weights
        first = self.members[0]
        super().__init__(first.tasks, first.event_shape, first.levels, validate_args)

    def _combined_levels(self, value: Tensor) -> Tensor:
        tables = torch.stack([member._level_log_probs(value) for member in self.members])
        return combined_levels(tables, self.combine, self.log_weights, value, len(self.event_shape) - 1)

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        dims = len(self.event_shape) - 1
        if self.combine == "product":
            return levels_of_images(self._combined_levels(value), value, dims)
        terms = torch.stack([member._conditional_log_probs(value) for member in self.members])
        return combined_terms(terms, self.combine, self.log_weights, dims)

    def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.combine == "mixture":
            return _mixture_log_prob(self.members, self.log_weights, value, generator)
        return super()._log_prob(value, generator)

    def _drawn_in_step(self, draws: Draws) -> Tensor:
        """Draw ``(*sample, tasks, C, *space)`` with the cached samplers of all members, side by side."""
        rows, count = draws.uniforms.shape[: -len(self.event_shape)].numel(), len(self.members)
        weights = self.log_weights
        if weights is None:
            weights = torch.full((self.tasks, count), -math.log(count), device=draws.uniforms.device)
        now = weights.double().repeat(rows // self.tasks, 1).T.contiguous()  # (members, N)

        def joint(logits: list[Tensor]) -> Tensor:
            found = torch.stack([each.double().log_softmax(-1) for each in logits])
            if self.combine == "product":
                return _product(found, now.unsqueeze(-1), -1)
            return (found + now.unsqueeze(-1)).logsumexp(0)

        def decided(logits: list[Tensor], levels: Tensor) -> None:
            if self.combine == "mixture":
                found = torch.stack([each.double().log_softmax(-1) for each in logits])
                now.add_(found.gather(-1, levels.expand(count, -1).unsqueeze(-1)).squeeze(-1))
                now.sub_(now.logsumexp(0).nan_to_num(neginf=0.0))

        def sampler(member: Any) -> Any:
            naive = isinstance(member, RasterDensity) and not member.draws_in_step
            return (lambda own: member.drawn(own, True)) if naive else member.drawn

        return draw_together([sampler(member) for member in self.members], draws, self.event_shape, joint, decided)


class EnsembleDensity(_InRasterOrder, RasterDensity):
    """Densities that give logits in raster order as another of that kind; see ``ensemble_density``.

    The mean with equal weights is not the mixture of the members' densities of whole images: there the members are
    weighed equally at every pixel, so an unlikely pixel costs a member nothing at the pixels that follow.
    """

    def _network_logits(self, pixels: Tensor) -> Tensor:
        if self._equal_mean:
            return mixture_logits([member._network_logits(pixels) for member in self.members], 1)
        tables = torch.stack([member._logits(pixels) for member in self.members]).log_softmax(2)
        tables, value = tables.unflatten(1, (-1, self.tasks)), pixels.unflatten(0, (-1, self.tasks))
        dims = len(self.event_shape) - 1
        return combined_levels(tables, self.combine, self.log_weights, value, dims).flatten(0, 1)

    @property
    def _equal_mean(self) -> bool:
        return self.combine == "mean" and self.log_weights is None

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        device: torch.device = self.members[0].device
        return device

    @property
    def draws_in_step(self) -> bool:
        """See ``RasterDensity.draws_in_step``."""
        return not self._equal_mean or all(member.draws_in_step for member in self.members)

    @property
    def has_attention(self) -> bool:
        """See ``SequentialDensity.has_attention``."""
        return all(member.has_attention for member in self.members)

    def _attention_weights(self, value: Tensor) -> Tensor:
        return torch.stack([member._attention_weights(value) for member in self.members]).mean(0)

    def _sample_cached(self, draws: Draws) -> Tensor:
        nets = [member for member in self.members if isinstance(member, PixelCNNDensity)]
        if not self._equal_mean or len(nets) < len(self.members):
            return self._drawn_in_step(draws.map(lambda part: part.unflatten(0, (-1, self.tasks)))).flatten(0, 1)
        with contextlib.ExitStack() as restored:
            for member in nets:
                restored.enter_context(member.captured.restored())
            return sample_ensemble([(member.network, member.condition) for member in nets], draws)


class SequentialEnsembleDensity(_InRasterOrder):
    """Densities of several kinds, all in raster order, as one in that order; see ``ensemble_density``."""

    def _level_log_probs(self, value: Tensor) -> Tensor:
        return self._combined_levels(value)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        first = next((member for member in self.members if isinstance(member, SequentialDensity)), None)
        return cast(IndependentDensity, self.members[0]).log_probs.device if first is None else first.device

    def _drawn(self, draws: Draws) -> Tensor:
        return self._drawn_in_step(draws)


class MixedDensity(Density):
    """The mixture of densities of any kind: exact where they are, whatever their order; see ``ensemble_density``.

    An image is drawn by a member that is drawn first. Where a member is a bound, as the logarithm of an estimate whose
    mean is its probability, the mixture is one too.
    """

    combine = "mixture"

    def __init__(
        self, members: Sequence[Density], log_weights: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self.members, self.log_weights = list(members), log_weights
        first = self.members[0]
        super().__init__(first.tasks, first.event_shape, first.levels, validate_args)

    @property
    def exact(self) -> bool:  # type: ignore[override]  # of an instance here
        """Whether all members are."""
        return all(member.exact for member in self.members)

    @property
    def quantity(self) -> str:
        """See ``Density.quantity``: that of the first member that is a bound."""
        bound = next((member for member in self.members if not member.exact), None)
        return super().quantity if bound is None else bound.quantity

    def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        return _mixture_log_prob(self.members, self.log_weights, value, generator)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        weights = self.log_weights
        if weights is None:
            weights = torch.zeros(self.tasks, len(self.members))
        chosen = draw_uniforms((*sample_shape, self.tasks), generator, weights.device)
        member = invert_cdf(weights, chosen)[(..., *[None] * len(self.event_shape))]
        drawn = torch.stack([each.sample(sample_shape, generator) for each in self.members])
        return drawn.gather(0, member.to(drawn.device).expand(1, *drawn.shape[1:]))[0]
