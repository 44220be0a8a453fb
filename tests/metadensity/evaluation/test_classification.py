"""Likelihood as a classifier: against a Bayes error known by counting, perfect calibration, and the slow twin."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from metadensity import Density, FewShotModel
from metadensity.densities.independent import IndependentDensity
from metadensity.evaluation.classification import (
    class_log_probs,
    class_log_probs_reference,
    classification,
    nearest_neighbour_scores,
    posterior,
    reliability,
    tie_aware_accuracy,
)
from metadensity.evaluation.intervals import bounded_mean
from metadensity.evaluation.nway import NWayEpisodes
from metadensity.models import AttentionPixelCNN, IndependentPixels, SupportMixture, WaveNet

SHAPE = (1, 4, 4)


class Flips(FewShotModel):
    """The truth of ``flipped``: the first support image with each pixel flipped with probability ``flip``.

    trust: the factor on its log-odds; more than 1 is overconfident, with the same decisions.
    """

    def __init__(self, flip: float, trust: float = 1.0, event_shape: tuple[int, ...] = SHAPE) -> None:
        super().__init__(event_shape, 2)
        self.odds = trust * math.log((1 - flip) / flip)

    def condition(self, support: torch.Tensor) -> IndependentDensity:
        ink = self.odds * (support[0].float() - 0.5)
        return IndependentDensity(torch.stack([-ink, ink], 1))


def flipped(episodes: int, ways: int, queries: int, flip: float, differ: int | None = None) -> NWayEpisodes:
    """One clean support a class, queries of a uniform class with flipped pixels.

    differ: the supports of two classes differ in exactly so many pixels; None: they are random.
    """
    generator = torch.Generator().manual_seed(0)
    support = torch.randint(2, (episodes, ways, *SHAPE), generator=generator).to(torch.uint8)
    if differ is not None:
        support[:, 1] = support[:, 0]
        support[:, 1].flatten(1)[:, :differ] ^= 1
    label = torch.randint(ways, (episodes, queries), generator=generator)
    clean = support[torch.arange(episodes)[:, None], label]
    noise = (torch.rand(clean.shape, generator=generator) < flip).to(torch.uint8)
    return NWayEpisodes(support[:, :, None], clean ^ noise, label)


@pytest.mark.parametrize("differ", [1, 2, 5])
def test_accuracy_is_the_bayes_accuracy(differ: int) -> None:
    """Two classes that differ in d pixels: right where fewer than d/2 of those were flipped, half where d/2 were."""
    flip, episodes = 0.2, flipped(400, 2, 25, 0.2, differ)
    found = classification(class_log_probs(Flips(flip), episodes), episodes.label.numpy())
    flips = np.arange(differ + 1)
    exact = float((binom.pmf(flips, differ, flip) * (0.5 * (flips * 2 == differ) + (flips * 2 < differ))).sum())
    odds = np.log((1 - flip) / flip) * (differ - 2 * flips)
    nll = float((binom.pmf(flips, differ, flip) * np.log1p(np.exp(-odds))).sum())
    for value, known, (low, high) in (
        (found.accuracy, exact, found.accuracy_interval),
        (found.nll, nll, found.nll_interval),
    ):
        assert high - low < 0.03
        assert value == pytest.approx(known, abs=high - low)  # four standard errors
    assert found.ece < 0.02
    assert (found.ways, found.episodes, found.queries, found.chance) == (2, 400, 10_000, 0.5)
    assert found.per_episode.mean() == pytest.approx(found.accuracy)


def test_calibration_is_perfect_for_the_truth_alone() -> None:
    """A posterior from the true likelihood is calibrated; twice its log-odds decide alike, but are overconfident."""
    episodes = flipped(400, 5, 25, 0.25)
    label = episodes.label.numpy()
    true, sure = (classification(class_log_probs(Flips(0.25, trust), episodes), label) for trust in (1.0, 2.0))
    assert true.ece < 0.015
    for found in true.bins:
        assert found.confidence == pytest.approx(found.accuracy, abs=4 * math.sqrt(0.25 / found.queries))
    assert sure.accuracy == pytest.approx(true.accuracy, abs=0.005)
    assert sure.ece > 5 * true.ece
    assert sure.nll > true.nll_interval[1]


def test_a_model_that_ignores_the_support_is_at_chance_to_the_bit() -> None:
    episodes = flipped(20, 5, 6, 0.1)
    found = classification(class_log_probs(IndependentPixels(SHAPE, 2), episodes), episodes.label.numpy())
    assert found.accuracy == pytest.approx(0.2, abs=1e-12)
    assert found.nll == pytest.approx(math.log(5))
    assert found.ece == pytest.approx(0, abs=1e-9)


def test_zero_shots_know_nothing() -> None:
    episodes = flipped(20, 5, 6, 0.1)
    episodes = NWayEpisodes(episodes.support[:, :, :0], episodes.query, episodes.label)
    found = classification(class_log_probs(SupportMixture(SHAPE, 2), episodes), episodes.label.numpy())
    assert found.accuracy == pytest.approx(0.2, abs=1e-12)
    with pytest.raises(ValueError, match=r"shots=0: without supports there is no nearest neighbour"):
        nearest_neighbour_scores(episodes, 2)


def network() -> FewShotModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AttentionPixelCNN(SHAPE, 2, layers=2, planes=4, penultimate=4)
    for parameter in model.parameters():
        parameter.data *= 3  # so that the support matters
    return model


@pytest.mark.parametrize("images_per_batch", [1, 7, 30, 512])
@pytest.mark.parametrize("shots", [0, 1, 3])
def test_fast_equals_slow(images_per_batch: int, shots: int) -> None:
    generator = torch.Generator().manual_seed(1)
    support = torch.randint(2, (3, 4, shots, *SHAPE), generator=generator).to(torch.uint8)
    query = torch.randint(2, (3, 5, *SHAPE), generator=generator).to(torch.uint8)
    episodes, model = NWayEpisodes(support, query, torch.zeros(3, 5, dtype=torch.int64)), network()
    state = torch.get_rng_state()
    fast = class_log_probs(model, episodes, images_per_batch)
    assert fast.shape == (3, 5, 4)
    np.testing.assert_allclose(fast, class_log_probs_reference(model, episodes), rtol=1e-5)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert shots == 0 or len(np.unique(fast.round(3))) == fast.size, "the classes are told apart"


def recordings(shots: int = 2, places: int = 12) -> NWayEpisodes:
    """Sequences of lengths of their own, from none to all places; padding is 0."""
    generator = torch.Generator().manual_seed(2)
    sizes, shape = {"support": (3, 4, shots), "query": (3, 5)}, (1, places)
    pixels = {name: torch.randint(4, (*size, *shape), generator=generator) for name, size in sizes.items()}
    lengths = {name: torch.randint(places + 1, size, generator=generator) for name, size in sizes.items()}
    whole = NWayEpisodes(
        *(part.to(torch.uint8) for part in pixels.values()),
        torch.arange(5).expand(3, 5) % 4,
        support_lengths=lengths["support"],
        query_lengths=lengths["query"],
    )
    return whole.filled(0)


@pytest.mark.parametrize("images_per_batch", [1, 7, 512])
def test_of_sequences_the_real_places_count(images_per_batch: int) -> None:
    """As if each sequence were cut off where it ends; whatever stands beyond its end."""
    episodes = recordings()
    torch.manual_seed(0)
    model = WaveNet((1, 12), 4, layers=3, planes=4, penultimate=4, dilations=(1, 2)).double()
    found = class_log_probs(model, episodes, images_per_batch)
    np.testing.assert_allclose(found, class_log_probs_reference(model, episodes), rtol=1e-9, atol=1e-12)
    for e, q, w in ((0, 0, 1), (1, 4, 2), (2, 3, 3)):
        assert episodes.support_lengths is not None
        assert episodes.query_lengths is not None
        length = int(episodes.query_lengths[e, q])
        density = model(episodes.support[e, w, :, None], episodes.support_lengths[e, w, :, None])
        terms = density.conditional_log_probs(episodes.query[e, q, None])  # type: ignore[attr-defined]
        assert found[e, q, w] == pytest.approx(float(terms[..., :length].detach().sum()), rel=1e-9)
    padded = episodes.filled(3)
    assert not torch.equal(padded.query, episodes.query)
    assert np.array_equal(found, class_log_probs(model, padded, images_per_batch)), "padding moves a likelihood"
    content = NWayEpisodes(episodes.support, episodes.query, episodes.label)
    assert not np.allclose(found, class_log_probs(model, content, images_per_batch)), "lengths do nothing"
    whole = replace(content, query_lengths=torch.full((3, 5), 12))
    np.testing.assert_allclose(class_log_probs(model, content), class_log_probs(model, whole))


@pytest.mark.parametrize("images_per_batch", [1, 7, 512])
def test_both_ways_adds_what_the_query_says_of_each_support(images_per_batch: int) -> None:
    episodes = recordings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WaveNet((1, 12), 4, layers=3, planes=4, penultimate=4, dilations=(1, 2)).double()
        torch.nn.init.normal_(model.encoder.null)
    plain = class_log_probs(model, episodes, images_per_batch)
    found = class_log_probs(model, episodes, images_per_batch, both_ways=True)
    assert episodes.support_lengths is not None
    assert episodes.query_lengths is not None
    for e, q, w in ((0, 0, 1), (1, 4, 2), (2, 3, 3)):
        gain = 0.0
        given = model(episodes.query[e, q][None, None], episodes.query_lengths[e, q][None, None])
        nothing = model(episodes.query[:0, :1])
        for image, length in zip(episodes.support[e, w], episodes.support_lengths[e, w], strict=True):
            after, before = (each.prefix_log_prob(image[None], length[None]).detach() for each in (given, nothing))
            gain += float(after - before)
        assert abs(gain) > 1e-6
        assert found[e, q, w] - plain[e, q, w] == pytest.approx(gain, rel=1e-9)
    none = NWayEpisodes(episodes.support[:, :, :0], episodes.query, episodes.label)
    assert np.array_equal(class_log_probs(model, none), class_log_probs(model, none, both_ways=True))


def test_padding_is_no_distance_and_no_other_image() -> None:
    episodes, padded = recordings(), recordings().filled(3)
    scores = nearest_neighbour_scores(episodes, 4)
    assert np.array_equal(scores, nearest_neighbour_scores(padded, 4))
    assert np.array_equal(episodes.dependence()[0], padded.dependence()[0])
    content = NWayEpisodes(padded.support, padded.query, padded.label)
    assert not np.array_equal(scores, nearest_neighbour_scores(content, 4))


def test_each_support_is_encoded_once() -> None:
    seen: list[tuple[int, ...]] = []

    class Counting(Flips):
        def condition(self, support: torch.Tensor) -> IndependentDensity:
            seen.append(tuple(support.shape))
            return super().condition(support)

    episodes = flipped(4, 5, 10, 0.1)
    class_log_probs(Counting(0.1), episodes, images_per_batch=20)
    assert seen == [(1, 5, *SHAPE)] * 4
    seen.clear()
    class_log_probs(Counting(0.1), episodes, images_per_batch=150)
    assert seen == [(1, 15, *SHAPE), (1, 5, *SHAPE)]


def test_nearest_neighbour_equals_the_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    for levels in (2, 9):
        support = torch.randint(levels, (3, 4, 2, *SHAPE), generator=generator).to(torch.uint8)
        query = torch.randint(levels, (3, 5, *SHAPE), generator=generator).to(torch.uint8)
        scores = nearest_neighbour_scores(NWayEpisodes(support, query, torch.zeros(3, 5, dtype=torch.int64)), levels)
        for e, q, w in np.ndindex(3, 5, 4):
            squares = min(float((query[e, q].double() - image.double()).square().mean()) for image in support[e, w])
            assert -scores[e, q, w] == pytest.approx(squares if levels == 2 else math.sqrt(squares) / (levels - 1))


def test_posteriors_and_ties() -> None:
    scores = np.log(np.array([[0.2, 0.6, 0.2], [0.1, 0.1, 0.05]]))
    np.testing.assert_allclose(np.exp(posterior(scores)), [[0.2, 0.6, 0.2], [0.4, 0.4, 0.2]])
    assert posterior(np.full((1, 4), -np.inf)).tolist() == [[-math.log(4)] * 4]
    np.testing.assert_allclose(np.exp(posterior(np.array([[-np.inf, -2000.0]]))), [[0, 1]])
    tied = np.array([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    assert tie_aware_accuracy(tied, np.array([0, 1, 2])).tolist() == [0.5, 0.0, 1 / 3]


def test_reliability_by_hand() -> None:
    confidence, right = np.array([0.55, 0.5, 0.95, 1.0]), np.array([1.0, 0.0, 1.0, 0.0])
    error, bins = reliability(confidence, right, 10)
    # Bins 0.5 and 0.9, two each: |0.5 - 0.525| and |0.5 - 0.975|, each with weight one half.
    assert error == pytest.approx((0.025 + 0.475) / 2)
    assert [(b.low, b.high, b.queries, b.accuracy) for b in bins] == [(0.5, 0.6, 2, 0.5), (0.9, 1.0, 2, 0.5)]
    assert [b.confidence for b in bins] == pytest.approx([0.525, 0.975])


def test_a_class_ruled_out_wrongly_costs_everything() -> None:
    found = classification(np.array([[[0.0, -np.inf]], [[0.0, -1.0]]]), np.array([[1], [0]]))
    assert found.nll == math.inf
    assert found.accuracy == 0.5


@pytest.mark.parametrize(("difficulty", "episodes", "least"), [(0.7, 40, 0.93), (0.97, 100, 0.92), (0.999, 20, 0.95)])
def test_intervals_cover(difficulty: float, episodes: int, least: float) -> None:
    """Nominal 95 %. Episodes differ in difficulty (beta, mean as given) and have 10 queries. 2,000 simulations.

    Near 1 most simulations see no error at all, and the usual interval, a point, would hold the truth almost never.
    """
    random = np.random.default_rng(0)
    clusters, covered, usual = np.arange(episodes).repeat(10), 0, 0
    for _ in range(2000):
        chance = random.beta(8 * difficulty, 8 * (1 - difficulty), episodes).repeat(10)
        values = (random.random(len(chance)) < chance).astype(float)
        mean, (low, high) = bounded_mean(values, clusters)
        assert 0 <= low <= mean <= high <= 1
        covered += low <= difficulty <= high
        usual += low <= difficulty <= high and mean < 1
    assert covered / 2000 >= least
    if difficulty == 0.999:
        assert usual / 2000 < 0.5


def test_intervals_at_the_ends() -> None:
    ones, clusters = np.ones(20), np.arange(10).repeat(2)
    assert bounded_mean(ones, clusters) == (1.0, (pytest.approx(0.05**0.1), 1.0))
    assert bounded_mean(0 * ones, clusters) == (0.0, (0.0, pytest.approx(1 - 0.05**0.1)))
    assert bounded_mean(np.array([0.2, 0.4]), np.zeros(2, np.int64)) == (pytest.approx(0.3), (0.0, 1.0))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"log_probs \(3, 2\) and label \(3,\); give \(episodes, queries, ways\)"):
        classification(np.zeros((3, 2)), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"label holds 0 to 2; with 2 ways give 0 to 1"):
        classification(np.zeros((1, 2, 2)), np.array([[0, 2]]))
    with pytest.raises(ValueError, match=r"bins=0; give at least 1"):
        classification(np.zeros((1, 2, 2)), np.array([[0, 1]]), bins=0)
    with pytest.raises(ValueError, match=r"images of shape \(1, 4, 4\), but the model is of \(1, 5, 5\)"):
        class_log_probs(IndependentPixels((1, 5, 5), 2), flipped(1, 2, 1, 0.1))
    with pytest.raises(ValueError, match=r"images_per_batch=0; give at least 1"):
        class_log_probs(IndependentPixels(SHAPE, 2), flipped(1, 2, 1, 0.1), images_per_batch=0)


def test_nan_is_named() -> None:
    class Broken(IndependentPixels):
        def condition(self, support: torch.Tensor) -> Density:
            self.logits.data.fill_(math.nan)
            return super().condition(support)

    with pytest.raises(ValueError, match=r"log p is nan for 4 of 4 pairs of a query and a class"):
        class_log_probs(Broken(SHAPE, 2), flipped(1, 2, 2, 0.1))
