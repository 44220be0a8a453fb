"""Linear prediction that switches between states, fitted to training data and to the support by counting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.checks import real_places, require_sizes
from metadensity.densities.linear_prediction import in_order
from metadensity.densities.switching_prediction import SwitchingPredictionDensity, SwitchingPredictor
from metadensity.episode import EpisodeSource
from metadensity.likelihoods.levels import at_least_float32
from metadensity.model import FewShotModel
from metadensity.models.linear_prediction import LOOKED_AT, QUIET, RIDGE
from metadensity.nn.linear_prediction import WINDOW, Predictor, amplitudes

_PASSES = 8  # of expectation and maximisation over the training data
_TOGETHER = 16  # sequences of it at a time
_POOLED = 20.0  # places that all training data together count for in each state, so that none is of nothing
_BEGIN = 0.1  # what the first state counts for, where a transition counts for one


class SwitchingPrediction(FewShotModel):
    """A hidden Markov chain over linear predictions: a stretch of places is predicted by the coefficients of its state.

    Poritz 1982, "Linear predictive hidden Markov models and the speech signal", as recalled; adapted to the support as
    the mixtures of speaker recognition are (Reynolds et al. 2000, "Speaker verification using adapted Gaussian mixture
    models", as recalled). Levels are mu-law codes, in raster order. A trainer lets it look at the training data
    (``initialise``): states that all voices share, by expectation and maximisation. Given a support, ``passes`` more
    adapt them: the moments that a state had count for exp(log_trust) places, those of its part of the support for one
    each, and so for transitions, with exp(log_inertia). Scale, its beginning and floor, a uniform part, and these two
    are learned: six numbers.

    states: of the chain. taps: places before each one that it is predicted from. stay: places for which a state stays,
    at least; 80 are 10 ms at 8 kHz. passes: of adaptation; the chain is then that of the support.
    """

    any_places = True

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        states: int = 16,
        taps: int = 12,
        stay: int = 80,
        passes: int = 3,
    ) -> None:
        super().__init__(event_shape, levels)
        require_sizes(states=states, taps=taps, stay=stay, passes=passes)
        self.states, self.taps, self.stay, self.passes = map(int, (states, taps, stay, passes))
        self.log_gain = nn.Parameter(torch.tensor(math.log(0.6)))
        self.log_floor = nn.Parameter(torch.tensor(math.log(1e-4)))
        self.log_start = nn.Parameter(torch.tensor(math.log(1e-2)))
        self.uniform_logit = nn.Parameter(torch.tensor(math.log(0.002)))
        self.log_trust = nn.Parameter(torch.tensor(math.log(10.0)))
        self.log_inertia = nn.Parameter(torch.tensor(math.log(5.0)))
        self.moments: Tensor
        self.begin: Tensor
        self.follow: Tensor
        self.places: Tensor
        self.register_buffer("moments", _noises(self.states, self.taps))  # until data are seen
        self.register_buffer("begin", torch.full((self.states,), 1 / self.states))
        self.register_buffer("follow", _lasting(self.states))
        self.register_buffer("places", torch.zeros((), dtype=torch.int64))  # how many they are of

    def condition(self, support: Tensor) -> SwitchingPredictionDensity:
        """Adapt the states to each task."""
        return SwitchingPredictionDensity(self._adapted(support, None), self.event_shape)

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> SwitchingPredictionDensity:
        """The same, of the places that are real."""
        return SwitchingPredictionDensity(self._adapted(support, lengths), self.event_shape)

    def _adapted(self, support: Tensor, lengths: Tensor | None) -> SwitchingPredictor:
        tasks = support.shape[1]
        trust, inertia = self.log_trust.double().exp(), self.log_inertia.double().exp()
        begin, follow = self.begin.double().expand(tasks, -1), self.follow.double().expand(tasks, -1, -1)
        known = trust * self.moments.double().expand(tasks, -1, -1, -1)
        predictor = self._predictor(known, begin, follow)
        codes = in_order(support, len(self.event_shape) - 1).long()
        real = torch.ones_like(codes, dtype=torch.bool)
        if lengths is not None:
            real = real_places(lengths.to(codes.device), codes.shape[-1])
        parts = [_Part(one, its, self.levels, self.taps, self.stay) for one, its in zip(codes, real, strict=True)]
        for _ in range(self.passes if parts else 0):
            counts = [part.counted(predictor) for part in parts]
            moments, first, then, _ = (sum(each[1:], each[0]) for each in zip(*counts, strict=True))
            predictor = self._predictor(
                known + moments,
                _normalised(_BEGIN * inertia * begin + first),
                _normalised(inertia * follow + then),
            )
        return predictor

    def _predictor(self, moments: Tensor, begin: Tensor, follow: Tensor) -> SwitchingPredictor:
        """moments: ``(tasks, states, taps + 1, taps + 1)``; begin, follow: probabilities."""
        size = moments.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        past = moments[..., :-1, :-1] + RIDGE * size * torch.eye(self.taps).to(moments)
        taps = torch.linalg.solve(past, moments[..., :-1, -1]).flip(-1)  # the last place first
        numbers = map(at_least_float32, (self.log_gain, self.log_floor, self.log_start, self.uniform_logit))
        gain, floor, start, uniform = numbers
        flat = Predictor(
            taps.flatten(0, 1).to(gain), gain.exp(), floor.exp(), start.exp(), uniform.sigmoid(), self.levels
        )
        return SwitchingPredictor(flat, begin.log(), follow.log(), self.stay)

    @torch.no_grad()
    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """Find the states of ``LOOKED_AT`` training sequences; see ``FewShotModel.initialise``."""
        if int(self.places):
            return
        parts, places = [], 0
        for index in range(-(-LOOKED_AT // (tasks * queries))):
            episode = source.episode(index, tasks, 0, queries).to(self.moments.device)
            codes = in_order(episode.query, len(self.event_shape) - 1).long().flatten(0, 1)
            lengths = episode.query_sizes.flatten().to(codes.device)
            codes = codes[:, : int(lengths.max())]
            real = real_places(lengths, codes.shape[-1])
            places += int(lengths.sum())
            parts += [
                _Part(one, its, self.levels, self.taps, self.stay)
                for one, its in zip(codes.split(_TOGETHER), real.split(_TOGETHER), strict=True)
            ]
        moments = torch.cat([part.moments[part.sizes > 0] for part in parts])  # of all frames in turn
        pooled = _POOLED * moments.sum(0) / places
        follow = _lasting(self.states).to(pooled)
        begin = torch.full((self.states,), 1 / self.states).to(pooled)
        held = _beginnings(moments, self.states) + pooled
        for _ in range(_PASSES):
            found = [torch.zeros_like(held), torch.zeros_like(begin), torch.zeros_like(follow), torch.zeros_like(begin)]
            for part in parts:
                every = len(part.codes), -1, -1, -1
                counts = part.counted(
                    self._predictor(held.expand(every), begin.expand(every[:2]), follow.expand(every[:3]))
                )
                found = [total + each.sum(0) for total, each in zip(found, counts, strict=True)]
            held, begin = found[0] + pooled, _normalised(found[1] + 1 / self.states)
            follow = _normalised(found[2] + 1 / self.states)
        self.moments.copy_(held / (found[3] + _POOLED)[:, None, None])
        self.begin.copy_(begin)
        self.follow.copy_(follow)
        self.places.fill_(places)


class _Part:
    """Sequences of codes ``(tasks, places)``, one of each task, with what does not depend on the states."""

    def __init__(self, codes: Tensor, real: Tensor, levels: int, taps: int, stay: int) -> None:
        x = amplitudes(codes.double(), levels) * real
        around = F.avg_pool1d(F.pad(x.abs().unsqueeze(1), (WINDOW - 1, 0)), WINDOW, stride=1).squeeze(1)
        rows = F.pad(x, (taps, 0)).unfold(-1, taps + 1, 1) * (real / (around + QUIET)).unsqueeze(-1)
        rows = F.pad(rows, (0, 0, 0, -rows.shape[1] % stay)).unflatten(1, (-1, stay))
        self.codes, self.real = codes, real
        self.moments = rows.mT @ rows  # (tasks, frames, taps + 1, taps + 1)
        self.sizes = F.pad(real.double(), (0, -real.shape[1] % stay)).unflatten(1, (-1, stay)).sum(-1)

    def counted(self, predictor: SwitchingPredictor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Expected moments, first states, transitions and places of each state, given the sequences; float64.

        ``(tasks, states, taps + 1, taps + 1)``, ``(tasks, states)``, ``(tasks, states, states)``, ``(tasks, states)``.
        """
        frames = predictor.frames(predictor.terms(self.codes) * self.real.unsqueeze(-2)).sum(-1)
        before = predictor.forward(frames)
        behind, after = torch.zeros_like(before[..., 0]), []
        for frame in frames.flip(-1).unbind(-1):
            after.append(behind)
            behind = (predictor.follow + (frame + behind).unsqueeze(-2)).logsumexp(-1)
            behind = behind - behind.logsumexp(-1, keepdim=True)
        later = torch.stack(after[::-1], -1)
        state = (before + frames + later).softmax(-2)  # (tasks, states, frames)
        moments = torch.einsum("tkf,tfij->tkij", state, self.moments)
        come = (frames + later)[..., 1:].unsqueeze(-3)  # of the next frame: (tasks, 1, states, frames - 1)
        both = (before + frames)[..., :-1].unsqueeze(-2) + predictor.follow.unsqueeze(-1) + come
        pairs = both.flatten(1, 2).softmax(1).unflatten(1, both.shape[1:3]) * (self.sizes[:, None, None, 1:] > 0)
        first = state[..., 0] * (self.sizes[:, :1] > 0)
        return moments, first, pairs.sum(-1), (state * self.sizes.unsqueeze(1)).sum(-1)


def _noises(states: int, taps: int) -> Tensor:
    """Moments of noises of as many colours, each place like the one before it or unlike it."""
    found = torch.eye(taps + 1).repeat(states, 1, 1)
    found[:, -1, -2] = found[:, -2, -1] = torch.linspace(-0.9, 0.9, states) if states > 1 else torch.zeros(1)
    return found


def _lasting(states: int) -> Tensor:
    """Transitions of states that go on four times of five."""
    found = torch.full((states, states), 0.2 / max(1, states - 1)).fill_diagonal_(0.8)
    return _normalised(found)


def _beginnings(frames: Tensor, states: int) -> Tensor:
    """Moments of some neighbouring ones of all ``frames`` for each state."""
    at = [int(len(frames) * (number + 0.5) / states) for number in range(states)]
    return torch.stack([frames[place : place + 4].sum(0) for place in at])


def _normalised(counts: Tensor) -> Tensor:
    return counts / counts.sum(-1, keepdim=True)
