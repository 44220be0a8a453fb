"""Models with a latent variable: the examples of a density that is no product over places, and of a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from metadensity import Density, FewShotModel
from metadensity.densities.independent import IndependentDensity
from metadensity.density import BoundDensity
from metadensity.drawing import invert_cdf

LATENTS = 3
Components = Callable[[Tensor], Tensor]


class LatentDensity(Density):
    """p(x) = sum_z p(z) prod_t p(x_t | z), summed over all z: exact, and without terms for places."""

    def __init__(self, log_weights: Tensor, tables: Tensor) -> None:
        self.log_weights = log_weights  # (tasks, latents)
        self.components = [IndependentDensity(table[None], tasks=len(log_weights)) for table in tables]
        super().__init__(len(log_weights), tables.shape[2:], tables.shape[1])

    def joint(self, value: Tensor) -> Tensor:
        """log p(x, z), ``(*sample, tasks, latents)``."""
        return torch.stack([part._log_prob(value, None) for part in self.components], -1) + self.log_weights

    def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.joint(value).logsumexp(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        latent = invert_cdf(self.log_weights, torch.rand(*sample_shape, self.tasks, generator=generator))
        drawn = torch.stack([part.sample(sample_shape, generator) for part in self.components])
        index = latent[(None, ..., *[None] * len(self.event_shape))].expand(1, *drawn.shape[1:])
        return drawn.gather(0, index)[0]


class LatentBound(BoundDensity):
    """The importance-weighted bound of a LatentDensity (Burda et al. 2016): z from q(z | x), ``samples`` times."""

    def __init__(self, truth: LatentDensity, proposal: Components, samples: int) -> None:
        self.truth, self.proposal = truth, proposal
        super().__init__(truth.tasks, truth.event_shape, truth.levels, samples)

    def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.weights(value, generator).logsumexp(-1) - torch.tensor(self.samples).log()

    def weights(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        """log p(x, z) - log q(z | x) of each sample, ``(*sample, tasks, samples)``."""
        log_q = self.proposal(value)
        uniforms = torch.rand(*log_q.shape[:-1], self.samples, generator=generator)
        latents = invert_cdf(log_q.unsqueeze(-2).detach(), uniforms)
        return (self.truth.joint(value) - log_q).gather(-1, latents)

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        return self.truth.sample(sample_shape, generator)


class LatentMixture(FewShotModel):
    """A mixture whose weights are the posterior of z given the supports, each counted by a learned share."""

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.prior = nn.Parameter(torch.zeros(LATENTS))
        self.share = nn.Parameter(torch.zeros(()))
        self.tables = nn.Parameter(torch.randn(LATENTS, levels, *self.event_shape))

    def condition(self, support: Tensor) -> Density:
        flat = LatentDensity(torch.zeros(support.shape[1], LATENTS).to(self.prior), self.tables)
        seen = flat.joint(support).sum(0) * self.share.sigmoid()
        return LatentDensity((self.prior + seen).log_softmax(-1), self.tables)


class LatentModel(LatentMixture):
    """The same, scored by the bound."""

    kind: type[LatentBound] = LatentBound

    def __init__(self, event_shape: Sequence[int], levels: int, samples: int = 4) -> None:
        super().__init__(event_shape, levels)
        self.samples = samples
        self.encoder = nn.Linear(int(torch.Size(self.event_shape).numel()), LATENTS)

    def propose(self, value: Tensor) -> Tensor:
        """log q(z | x), ``(*sample, tasks, latents)``."""
        return self.encoder(value.flatten(-len(self.event_shape)).to(self.prior)).log_softmax(-1)

    def condition(self, support: Tensor) -> Density:
        truth = super().condition(support)
        assert isinstance(truth, LatentDensity)
        return self.kind(truth, self.propose, self.samples)


class ForgetsTheMean(LatentModel):
    """A bound that adds up its samples and does not divide by their number."""

    class kind(LatentBound):  # noqa: N801  an attribute of the model
        def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
            return self.weights(value, generator).logsumexp(-1)


class KeepsOneSample(LatentModel):
    """A bound that says it has more samples than it looks at."""

    class kind(LatentBound):  # noqa: N801
        def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
            return self.weights(value, generator)[..., 0]


class DrawsElsewhere(LatentModel):
    """A bound that draws from torch's own random state."""

    class kind(LatentBound):  # noqa: N801
        def _log_prob(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
            return super()._log_prob(value, None)
