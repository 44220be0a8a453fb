"""Weights of the members of an ensemble: those under which given images are likeliest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metadensity.densities.linear_prediction import in_order
from metadensity.density import Density, FactorisedDensity
from metadensity.likelihoods.levels import levels_of_images

FLOOR = 1e-4
"""No member of a mean or a mixture has less weight, so a mixture is never more than 9.3 nats above a member."""


@dataclass(frozen=True)
class Evidence:
    """What members say of images, which decides their weights.

    terms: log-probabilities ``(N, tasks, members, places)``; of a mixture those of whole images, as one place.
    tables: of a product, those of all levels, ``(N, tasks, members, levels, places)``.
    """

    terms: Tensor
    tables: Tensor | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, members: Sequence[Density], combine: str, value: Tensor, real: Tensor | None = None) -> Evidence:
        """Of images ``(N, tasks, C, *space)``. real: ``(N, tasks, places)`` which places of sequences count.

        Raises TypeError for members whose numbers are bounds, which say nothing of one another.
        """
        if not all(member.exact for member in members):
            raise TypeError(
                "Weights cannot be fitted to members that are bounds. Give the weights, or weights='equal'."
            )
        dims = value.ndim - 3
        counts = torch.ones(1, 1, 1, 1, device=value.device) if real is None else real.to(value.device).unsqueeze(2)
        if combine == "mixture" and real is None:
            return cls(torch.stack([member.log_prob(value) for member in members], 2).unsqueeze(-1))
        factorised = [member for member in members if isinstance(member, FactorisedDensity)]
        if combine != "product":
            terms = torch.stack([in_order(member.conditional_log_probs(value), dims) for member in factorised], 2)
            terms = torch.where(counts > 0, terms, 0.0)
            return cls(terms.sum(-1, keepdim=True) if combine == "mixture" else terms)
        whole = torch.stack([member.level_log_probs(value) for member in factorised])
        terms = in_order(levels_of_images(whole, value, dims), dims).movedim(0, 2)
        tables = in_order(whole.movedim(-2 - dims, 0), dims).movedim((1, 0), (2, 3))
        return cls(torch.where(counts > 0, terms, 0.0), torch.where(counts.unsqueeze(3) > 0, tables, 0.0))

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """That of all images of all tasks, as of one task."""
        terms = torch.cat([part.terms.flatten(0, 1) for part in parts]).unsqueeze(1)
        tables = [part.tables.flatten(0, 1) for part in parts if part.tables is not None]
        return cls(terms, torch.cat(tables).unsqueeze(1) if tables else None)

    def unfolded(self, images: int) -> Evidence:
        """That of ``(1, images * tasks, ...)`` as ``(images, tasks, ...)``."""
        terms = self.terms.unflatten(1, (images, -1)).squeeze(0)
        return Evidence(terms, None if self.tables is None else self.tables.unflatten(1, (images, -1)).squeeze(0))

    def _look(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-likelihood of each task, its gradient in theta ``(tasks, members)``, and a curvature that is positive."""
        if self.tables is None:
            weights = theta.log_softmax(-1)
            weighted = self.terms.double() + weights.unsqueeze(-1)
            scores = weighted.softmax(2) - weights.exp().unsqueeze(-1)
            curvature = torch.einsum("ntmp,ntkp->tmk", scores, scores)
            return weighted.logsumexp(2).sum((0, -1)), scores.sum((0, -1)), curvature
        powers, tables = theta.exp(), self.tables.double()
        tables = tables.clamp(min=-1e3)  # what is impossible moves no weight
        joint = torch.einsum("tm,ntmlp->ntlp", powers, tables)
        norm, p = joint.logsumexp(2, keepdim=True), joint.softmax(2)
        mean = torch.einsum("ntlp,ntmlp->ntmp", p, tables)
        terms = self.terms.double().clamp(min=-1e3)
        scores = powers.unsqueeze(-1) * (terms - mean)
        both = torch.einsum("ntlp,ntmlp,ntklp->tmk", p, tables, tables) - torch.einsum("ntmp,ntkp->tmk", mean, mean)
        likelihood = torch.einsum("tm,ntmp->ntp", powers, terms) - norm.squeeze(2)
        return likelihood.sum((0, -1)), scores.sum((0, -1)), both * powers.unsqueeze(-1) * powers.unsqueeze(-2)

    def best(self, start: Tensor, strength: float = 0.0, steps: int = 8) -> Tensor:
        """Log-weights ``(tasks, members)`` of each task under which the images are likeliest, from ``start`` on.

        start: ``(members,)`` logarithms of weights, or of exponents. strength: how many images those count for beside
        the images that are there: a normal prior around them, in logarithms. steps: of a damped Newton method, each of
        which is taken where it helps. No gradient leads through them but to ``start``.
        """
        images, tasks = self.terms.shape[:2]
        origin = start.detach().double().expand(tasks, -1)
        theta, damping = origin, torch.full_like(origin[:, :1], 1e-3)
        with torch.no_grad(), torch.autocast(self.terms.device.type, enabled=False):
            likelihood, gradient, curvature = self._look(theta)
            prior = strength / images * curvature.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
            for _ in range(steps):
                scale = curvature.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
                ridge = torch.diag_embed((prior + damping * scale + 1e-9).expand_as(theta))
                pull = gradient - prior * (theta - origin)
                step = torch.linalg.solve(curvature + ridge, pull.unsqueeze(-1)).squeeze(-1).clamp(-1, 1)
                other = self._look(theta + step)
                away = (theta + step - origin).square().sum(-1) - (theta - origin).square().sum(-1)
                gain = other[0] - likelihood - prior.squeeze(-1) * away / 2
                better = (gain > -1e-9 * likelihood.abs()).unsqueeze(-1)  # not of rounding, which differs with batches
                theta = torch.where(better, theta + step, theta)
                likelihood = torch.where(better.squeeze(-1), other[0], likelihood)
                gradient = torch.where(better, other[1], gradient)
                curvature = torch.where(better.unsqueeze(-1), other[2], curvature)
                damping = torch.where(better, damping / 4, damping * 8)
        found = start + (theta - origin).to(start)
        if self.tables is not None:
            return found.clamp(min=-20)
        return found.softmax(-1).clamp(min=FLOOR).log().log_softmax(-1)
