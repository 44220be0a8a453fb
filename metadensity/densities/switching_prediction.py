"""Linear prediction whose coefficients follow a hidden state, as an exact density of the codes of sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.densities.linear_prediction import in_order, out_of_order
from metadensity.density import SequentialDensity
from metadensity.drawing import Draws
from metadensity.nn.linear_prediction import Predicting, Predictor, level_mass


@dataclass(frozen=True)
class SwitchingPredictor:
    """A predictor for each state of a hidden Markov chain, which stays in a state for ``stay`` places at a time.

    predictors: of all tasks and states, states fastest. begin: log-probabilities of the first state, ``(tasks,
    states)``; follow: of the next given this one, ``(tasks, states, states)``, float64 both.
    """

    predictors: Predictor
    begin: Tensor
    follow: Tensor
    stay: int

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return self.begin.shape[0]

    @property
    def states(self) -> int:
        """Number of states."""
        return self.begin.shape[1]

    def terms(self, codes: Tensor) -> Tensor:
        """log p(x_t | x_<t, state) of codes ``(..., tasks, places)``: ``(..., tasks, states, places)``."""
        every = codes.repeat_interleave(self.states, -2)
        _, mean, scale = self.predictors(every)
        return self.log_mass(every, mean, scale).unflatten(-2, (self.tasks, self.states))

    def log_mass(self, codes: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """log p of codes given means and scales; the arguments broadcast."""
        uniform, levels = self.predictors.uniform, self.predictors.levels
        return ((1 - uniform) * level_mass(codes, mean, scale, levels) + uniform / levels).log()

    def frames(self, terms: Tensor) -> Tensor:
        """``(..., places)`` as ``(..., frames, stay)`` float64, with zeros beyond the last place."""
        return F.pad(terms.double(), (0, -terms.shape[-1] % self.stay)).unflatten(-1, (-1, self.stay))

    def next(self, weights: Tensor) -> Tensor:
        """Log-probabilities ``(..., tasks, states)`` of the state that follows, from those of this one."""
        return (weights.unsqueeze(-1) + self.follow).logsumexp(-2)

    def forward(self, frames: Tensor) -> Tensor:
        """log p(state of a frame | the frames before), from log p of frames, both ``(..., tasks, states, frames)``."""
        weights, found = self.begin.expand(frames.shape[:-1]), []
        for frame in frames.unbind(-1):
            found.append(weights)
            weights = self.next((weights + frame).log_softmax(-1))
        return torch.stack(found, -1)


class SwitchingPredictionDensity(SequentialDensity):
    """A sum over all paths of a hidden state that chooses the linear prediction, p(x) = sum_z p(z) p(x | z).

    The states before each place have an exact posterior, given the places before it (the forward algorithm), so it is a
    product over places as well. Given a state, a place is that of a ``LinearPredictionDensity``.
    """

    def __init__(
        self, predictor: SwitchingPredictor, event_shape: Sequence[int], validate_args: bool | None = None
    ) -> None:
        self.predictor = predictor
        super().__init__(predictor.tasks, event_shape, predictor.predictors.levels, validate_args)

    @property
    def device(self) -> torch.device:
        """Where pixels are drawn."""
        return self.predictor.begin.device

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        codes = in_order(value, len(self.event_shape) - 1).long()
        if not codes.numel():
            return self.predictor.predictors.taps.new_zeros(value.shape)
        terms = self.predictor.terms(codes)
        sums = self.predictor.frames(terms).cumsum(-1)  # (..., states, frames, stay)
        weights = self.predictor.forward(sums[..., -1]).unsqueeze(-1)
        after = (weights + sums).logsumexp(-3)
        before = (weights + F.pad(sums, (1, -1))).logsumexp(-3)
        found = (after - before).flatten(-2)[..., : codes.shape[-1]]
        return out_of_order(found.to(terms.dtype), self.event_shape)

    def _drawn(self, draws: Draws) -> Tensor:
        dims, switching = len(self.event_shape) - 1, self.predictor
        flat = draws.map(lambda part: in_order(part, dims))
        shape = flat.uniforms.shape
        predicting, levels = (
            Predicting(switching.predictors, *shape[:-2]),
            torch.arange(self.levels, device=self.device),
        )
        weights = switching.begin.expand(*shape[:-1], -1)
        drawn = torch.empty(shape, dtype=torch.long, device=self.device)
        for place in range(shape[-1]):
            if place and place % switching.stay == 0:
                weights = switching.next(weights)
            mean, scale = predicting.next()
            table = switching.log_mass(levels, mean.unsqueeze(-1), scale.unsqueeze(-1))
            table = table.unflatten(-2, (switching.tasks, switching.states)).double()
            logits = (weights.unsqueeze(-1) + table).logsumexp(-2)
            codes = flat.map(lambda part, place=place: part[..., place]).levels(logits)  # type: ignore[misc]
            drawn[..., place] = codes
            own = table.gather(-1, codes[..., None, None].expand(*weights.shape, 1)).squeeze(-1)
            weights = (weights + own).log_softmax(-1)
            predicting.put(codes.repeat_interleave(switching.states, -1), mean)
        return out_of_order(drawn, self.event_shape)
