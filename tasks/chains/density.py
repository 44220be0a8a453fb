"""The posterior predictive of a Markov chain with Dirichlet rows: an urn for each symbol that may come before."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from metadensity.density import SequentialDensity
from metadensity.drawing import Draws

_NUMBERS_AT_A_TIME = 2**22  # of a byte each, in tables of places by places


class UrnDensity(SequentialDensity):
    """p(x) = prod_t (a[x_{t-1}, x_t] + n_t) / (a[x_{t-1}].sum() + m_t): a Markov chain with Dirichlet rows.

    n_t counts how often x_t came after x_{t-1} earlier in x, m_t how often anything did: the rows are integrated out,
    so the sequence itself tells of them as well. Exact, in float64.

    pseudo_counts: ``(tasks, levels + 1, levels)`` a, positive; the last row is that of the first place.
    """

    order: ClassVar[str] = "the order of the sequence"

    def __init__(self, pseudo_counts: Tensor, places: int, validate_args: bool | None = None) -> None:
        self.pseudo_counts = pseudo_counts
        super().__init__(len(pseudo_counts), (1, places), pseudo_counts.shape[2], validate_args)

    @property
    def device(self) -> torch.device:
        """Where symbols are drawn."""
        return self.pseudo_counts.device

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        places = self.event_shape[-1]
        sequences = value.reshape(-1, places).long()
        task = torch.arange(self.tasks, device=self.device).repeat(value.shape[:-3].numel())
        rows = max(1, _NUMBERS_AT_A_TIME // places**2)
        parts = zip(sequences.split(rows), task.split(rows), strict=True)
        terms = [self._terms(part, tasks) for part, tasks in parts]
        return torch.cat(terms).view(value.shape) if terms else self.pseudo_counts.new_zeros(value.shape)

    def _terms(self, x: Tensor, task: Tensor) -> Tensor:
        """``(n, places)`` of sequences ``(n, places)``, each of the task that ``(n,)`` names."""
        before = torch.cat([torch.full_like(x[:, :1], self.levels), x[:, :-1]], 1)
        same_row = (before[:, :, None] == before[:, None, :]).tril_(-1)
        same = same_row & (x[:, :, None] == x[:, None, :])
        prior = self.pseudo_counts[task[:, None], before]
        chosen = prior.gather(-1, x.unsqueeze(-1)).squeeze(-1)
        return (chosen + same.sum(-1)).log() - (prior.sum(-1) + same_row.sum(-1)).log()

    def _drawn(self, draws: Draws) -> Tensor:
        flat = draws.map(lambda part: part.reshape(-1, self.event_shape[-1]))
        count = len(flat.uniforms)
        urns = self.pseudo_counts.repeat(count // self.tasks, 1, 1)
        row = torch.arange(count, device=self.device)
        before = torch.full_like(row, self.levels)
        drawn = []
        for place in range(self.event_shape[-1]):
            before_this = before
            before = flat.map(lambda part, place=place: part[:, place]).levels(urns[row, before].log())  # type: ignore[misc]
            urns[row, before_this, before] += 1
            drawn.append(before)
        return torch.stack(drawn, -1).view(draws.uniforms.shape)
