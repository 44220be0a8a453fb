"""Switching linear prediction against sums over all paths, against one state, and what it learns of data."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from metadensity.densities.linear_prediction import LinearPredictionDensity
from metadensity.episode import Episode
from metadensity.models import LinearPrediction, SwitchingPrediction
from metadensity.nn.linear_prediction import Predictor

LEVELS, PLACES = 16, 7


def codes(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(LEVELS, (*shape, 1, PLACES), generator=torch.Generator().manual_seed(seed))


def switching(**options: int) -> SwitchingPrediction:
    """In float64, with a chain that is like no other."""
    settings = {"states": 3, "taps": 2, "stay": 3, **options}
    model = SwitchingPrediction((1, PLACES), LEVELS, **settings).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.begin.copy_(torch.rand(model.states, generator=generator).softmax(0))
        model.follow.copy_((2 * torch.rand(model.states, model.states, generator=generator)).softmax(-1))
        model.log_trust.fill_(1.0)
        model.log_inertia.fill_(0.5)
    return model


def by_paths(model: SwitchingPrediction, support: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """log p of paths and values together, ``(paths, tasks)``, and the paths; of plain linear predictions."""
    predictor = model(support).predictor
    numbers = {name: getattr(predictor.predictors, name) for name in ("gain", "floor", "start", "uniform", "levels")}
    taps = predictor.predictors.taps.unflatten(0, (-1, model.states))
    plain = [LinearPredictionDensity(Predictor(taps[:, k], **numbers), (1, PLACES)) for k in range(model.states)]
    terms = torch.stack([density.conditional_log_probs(value)[:, 0] for density in plain])  # (states, tasks, places)
    frames = -(-PLACES // model.stay)
    paths = torch.tensor(list(itertools.product(range(model.states), repeat=frames)))
    found = []
    for path in paths:
        total = predictor.begin[:, path[0]]
        for before, after in itertools.pairwise(path):
            total = total + predictor.follow[:, before, after]
        state = path.repeat_interleave(model.stay)[:PLACES]
        found.append(total + sum(terms[state[place], :, place] for place in range(PLACES)))
    return torch.stack(found), paths


@pytest.mark.parametrize("shots", [0, 2])
def test_it_is_the_sum_over_all_paths(shots: int) -> None:
    model, support, value = switching(), codes(2, 4)[:shots], codes(4, seed=5)
    joint, _ = by_paths(model, support, value)
    torch.testing.assert_close(model(support).log_prob(value), joint.logsumexp(0))
    assert joint.std(0).min() > 0.1, "states that are alike would show nothing"


def test_what_a_state_had_of_a_support_is_what_all_paths_say() -> None:
    """The expected counts behind an adaptation, by enumeration."""
    model = switching(passes=1)
    support = codes(1, 4)
    joint, paths = by_paths(model, support[:0], support[0])
    weight = joint.softmax(0).T  # (tasks, paths)
    first = weight @ torch.nn.functional.one_hot(paths[:, 0], 3).double()
    pairs = torch.zeros(4, 3, 3, dtype=torch.float64)
    for path, share in zip(paths, weight.T, strict=True):
        for before, after in itertools.pairwise(path):
            pairs[:, before, after] += share
    inertia = math.exp(0.5)
    adapted = model(support).predictor
    begin = 0.1 * inertia * model.begin + first
    follow = inertia * model.follow + pairs
    torch.testing.assert_close(adapted.begin.exp(), begin / begin.sum(-1, keepdim=True))
    torch.testing.assert_close(adapted.follow.exp(), follow / follow.sum(-1, keepdim=True))


def test_one_state_is_linear_prediction() -> None:
    one, plain = switching(states=1), LinearPrediction((1, PLACES), LEVELS, taps=2).double()
    with torch.no_grad():
        plain.log_trust.fill_(1.0)
    support, value = codes(3, 4), codes(2, 4, seed=5)
    lengths = torch.tensor([[7, 3, 5, 1], [2, 7, 7, 7], [7, 7, 1, 4]])
    torch.testing.assert_close(one(support).log_prob(value), plain(support).log_prob(value))
    torch.testing.assert_close(one(support, lengths).log_prob(value), plain(support, lengths).log_prob(value))


def test_places_beyond_a_length_move_nothing() -> None:
    model, support, value = switching(), codes(2, 4), codes(2, 4, seed=5)
    lengths = torch.tensor([[7, 3, 5, 1], [2, 7, 6, 4]])
    beyond = torch.arange(PLACES) >= lengths[..., None, None]
    other = torch.where(beyond, (support + 3) % LEVELS, support)
    expected = model(support, lengths).log_prob(value)
    assert torch.equal(model(other, lengths).log_prob(value), expected)
    assert not torch.equal(model(support).log_prob(value), expected)


class TwoNoises:
    """Sequences that go between places that follow one another and places that alternate, every 32 of them."""

    event_shape, levels = (1, 256), 256

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        generator = torch.Generator().manual_seed(index)
        noise = torch.randn(shots + queries, tasks, 256, generator=generator) * 0.05
        sign = torch.randint(2, (shots + queries, tasks, 8), generator=generator).repeat_interleave(32, -1) * 1.8 - 0.9
        x = [noise[..., 0]]
        for place in range(1, 256):
            x.append(sign[..., place] * x[-1] + noise[..., place])
        samples = torch.stack(x, -1).clamp(-1, 1)
        companded = samples.sign() * (255 * samples.abs()).log1p() / math.log(256)
        drawn = ((companded + 1) / 2 * 255 + 0.5).long().unsqueeze(2)
        return Episode(drawn[queries:], drawn[:queries])


def test_it_finds_the_states_of_data() -> None:
    model = SwitchingPrediction((1, 256), 256, states=2, taps=1, stay=32)
    model.initialise(TwoNoises(), 8, 4)
    assert int(model.places) == 256 * 256
    taps = (model.moments[:, 0, 1] / model.moments[:, 0, 0]).sort().values
    assert taps.tolist() == pytest.approx([-0.9, 0.9], abs=0.1)
    assert model.follow.tolist() == [pytest.approx([0.5, 0.5], abs=0.1)] * 2
    plain = LinearPrediction((1, 256), 256, taps=1)
    plain.initialise(TwoNoises(), 8, 4)
    query = TwoNoises().episode(10**6, 8, 0, 4).query
    with torch.no_grad():
        gain = model(query[:0]).log_prob(query) - plain(query[:0]).log_prob(query)
    assert gain.mean() > 20
    before = model.moments.clone()
    model.initialise(TwoNoises(), 8, 4)
    assert torch.equal(model.moments, before), "what has seen data stays as it is"
